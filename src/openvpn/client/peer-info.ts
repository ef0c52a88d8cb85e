/**
 * Owns what the client tells a server of itself in its key message: what it can do, always; what machine it is on, where the profile says
 * `push-peer-info`. The lines and who reads them are wire/peer-info.ts's. Source: OpenVPN's src/openvpn/ssl.c (push_peer_info),
 * openvpn(8), "push-peer-info".
 */
import { formatPeerInfo } from '../../wire/peer-info.ts'
import { clientProto } from '../proto/negotiate.ts'

/** What is only told where the profile says so. */
export interface Machine {
  /** Of the interface that the default route leads through, as `02:00:5e:10:00:01`; undefined where there is none. */
  readonly hardwareAddress?: string | undefined
  /** The library that TLS is of, and its version. */
  readonly tls: string
  /** Version of the system. */
  readonly release: string
}

export interface PeerInfoOptions {
  readonly version: string
  readonly tunMtuMax: number
  readonly dataCiphers: readonly string[]
  /** Whether the driver knows keys with epochs. */
  readonly epoch: boolean
  /** Variables of `setenv`. */
  readonly environment: readonly (readonly [name: string, value: string])[]
  /** With `push-peer-info`. */
  readonly machine: Machine | undefined
}

/** Who negotiates as 2.4 did may be given any of these. */
const NCP_CIPHERS = ['AES-128-GCM', 'AES-256-GCM']
/** Of what a program around the client says by `setenv`, what is told always, and only with `push-peer-info`. */
const ALWAYS = /^(IV_GUI_VER|IV_SSO)$/
const PUSHED = /^(UV_[A-Za-z0-9_]{1,61}|IV_PLAT_VER)$/

/** At most 1535 bytes: what does not fit is left out, the user's own first. */
export function clientPeerInfo(options: PeerInfoOptions): string {
  const { version, tunMtuMax, dataCiphers, epoch, environment, machine } = options
  const entries = new Map<string, string>([
    ['IV_VER', version],
    ['IV_PLAT', 'linux'],
    ['IV_TCPNL', '1'],
    ['IV_MTU', String(tunMtuMax)],
  ])
  const offered = dataCiphers.map((name) => name.toUpperCase())
  if (NCP_CIPHERS.every((name) => offered.includes(name))) entries.set('IV_NCP', '2')
  entries.set('IV_CIPHERS', dataCiphers.join(':'))
  entries.set('IV_PROTO', String(clientProto(epoch)))
  entries.set('IV_COMP_STUBv2', '1')
  entries.set('IV_SSO', 'openurl,webauth,crtext')
  if (machine !== undefined) {
    const { hardwareAddress, tls, release } = machine
    if (hardwareAddress !== undefined) entries.set('IV_HWADDR', hardwareAddress)
    entries.set('IV_SSL', tls)
    entries.set('IV_PLAT_VER', release)
  }
  for (const [name, value] of environment) {
    const isTold = ALWAYS.test(name) || (machine !== undefined && PUSHED.test(name))
    if (isTold) entries.set(name, value)
  }
  return formatPeerInfo(entries)
}
