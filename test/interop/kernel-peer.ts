/**
 * OpenVPN on the kernel's driver and OpenVPN under `ovpn run`, one the server and the other its client, as a program for a
 * machine whose kernel has that driver. Arguments: which of TUNNELS, and the commands of OpenVPN 2.6 and 2.7. Prints a line of JSON.
 */
import { writeSync } from 'node:fs'
import type { Running } from '../command.ts'
import { answers, iperf, openLab, ping, SERVER_VPN, times } from './openvpn.ts'
import { STARTED, until } from './programs.ts'

export type Driver = 'kernel' | 'run'

/** OpenVPN at one end: 2.6 knows the kernel's driver of its time only, which is not that of this kernel. */
export interface End {
  readonly series: '2.6' | '2.7'
  readonly driver: Driver
}

export interface Tunnel {
  readonly server: End
  readonly client: End
  readonly transport: 'udp' | 'tcp'
  /** What the kernel says that the server's and the client's interface is: `ovpn` of its own driver, `tun` of ours. */
  readonly kinds: readonly [string, string]
  /** Packets lost, in percent: from the client, from the server, and from the client while keys are renewed. */
  readonly lost: readonly [number, number, number]
  /** How often keys were renewed meanwhile, and how many sessions there were. */
  readonly renewals: number
  readonly sessions: number
  /** Mbit/s of TCP to the server and from it. */
  readonly up: number
  readonly down: number
}

export const TUNNELS: Pick<Tunnel, 'server' | 'client' | 'transport'>[] = [
  {
    server: { series: '2.7', driver: 'kernel' },
    client: { series: '2.7', driver: 'run' },
    transport: 'udp',
  },
  {
    server: { series: '2.6', driver: 'run' },
    client: { series: '2.7', driver: 'kernel' },
    transport: 'udp',
  },
  {
    server: { series: '2.7', driver: 'run' },
    client: { series: '2.7', driver: 'kernel' },
    transport: 'tcp',
  },
  {
    server: { series: '2.7', driver: 'kernel' },
    client: { series: '2.6', driver: 'run' },
    transport: 'tcp',
  },
]

/** An emulated machine is slow, the more where others use its processors: it may take ten seconds to set a session up, or stand still. */
const PATIENCE_S = 90
const KEEPALIVE = 'keepalive 1 60'
/** Over TCP a session must have settled when keys are renewed: OpenVPN ends it when anything comes for an older key. */
const RENEWAL_S = 20

async function tunnel(
  wanted: (typeof TUNNELS)[number],
  commands: { [series: string]: string },
): Promise<Tunnel> {
  const { server, client, transport } = wanted
  const lab = openLab()
  const sideOf = ({ series, driver }: End, more: string[]) => {
    const program = commands[series]!
    return { program, offload: driver === 'run', more: ['tun-mtu 1400', ...more] }
  }
  const started = (running: Running, what: string) =>
    until(what, () => STARTED.test(running.stdout) || running.status !== null, PATIENCE_S)
  let far: Running | undefined
  let near: Running | undefined
  try {
    far = lab.startServer(sideOf(server, [KEEPALIVE, `reneg-sec ${RENEWAL_S}`]), transport)
    await started(far, 'the server starts')
    near = lab.startClient(sideOf(client, []), transport)
    await started(near, 'the client starts')
    await answers(lab.client, SERVER_VPN)
    const kinds = [lab.server, lab.client].map((netns) => {
      return /^ {4}(ovpn|tun) /m.exec(netns.ip('-d link show dev tun0'))?.[1] ?? 'none'
    }) as [string, string]
    const back = await ping(lab.server, '10.8.0.2', 20)
    const there = await ping(lab.client, SERVER_VPN, 20)
    const before = times(far, /soft reset/)
    const renewed = await ping(lab.client, SERVER_VPN, (RENEWAL_S + 4) * 10)
    return {
      ...{ server, client, transport, kinds, lost: [there, back, renewed] },
      renewals: times(far, /soft reset/) - before,
      sessions: times(near, STARTED),
      up: await iperf(lab, 1),
      down: await iperf(lab, 1, true),
    }
  } catch (error) {
    const logs = [far, near].map((one) => `${one?.stdout}${one?.stderr}`.slice(-2000))
    throw new Error(`${JSON.stringify(wanted)}\n${logs.join('\n---\n')}`, { cause: error })
  } finally {
    await lab.close()
  }
}

if (import.meta.main) {
  const [which, v26, v27] = process.argv.slice(2)
  const shown = await tunnel(TUNNELS[Number(which)]!, { '2.6': v26!, '2.7': v27! })
  writeSync(1, `${JSON.stringify(shown)}\n`)
  process.exit(0)
}
