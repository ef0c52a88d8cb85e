/**
 * OpenVPN on the kernel's driver and OpenVPN under `ovpn run`, one the server and the other its client, as a program for a
 * machine whose kernel has that driver: all TUNNELS, one after another. Arguments: the commands of OpenVPN 2.6 and 2.7. Prints
 * a line of JSON for each.
 */
import { writeSync } from 'node:fs'
import { type Running, run } from '../command.ts'
import type { TestNetns } from '../namespace.ts'
import { answers, iperf, type Lab, openLab, SERVER_VPN, times } from './openvpn.ts'
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
  /** Echo requests that the client sent while keys were renewed, those that the server got, its answers, and those that came. */
  readonly echoes: readonly [sent: number, got: number, answered: number, came: number]
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
const PATIENCE_S = 120
const KEEPALIVE = 'keepalive 1 60'
/**
 * Of keys, at both ends over UDP, at the kernel's over TCP: OpenVPN changes to a new one after half of its own `reneg-sec`, where it
 * looks (every 15 s, if nothing else happens: TLS_MULTI_REFRESH), and gives the one before up when it begins the next.
 * Source: OpenVPN's src/openvpn/ssl.c.
 */
const RENEWAL_S = 8
/** Of echo requests: some at each moment of a renewal, and few enough for an emulated processor. */
const INTERVAL_S = 0.05
/** Two renewals. */
const SECONDS = 2 * RENEWAL_S + 2

/** A session that is up. */
interface Session {
  readonly wanted: (typeof TUNNELS)[number]
  readonly lab: Lab
  readonly far: Running
  readonly near: Running
}

async function begin(
  wanted: (typeof TUNNELS)[number],
  lab: Lab,
  commands: { [series: string]: string },
): Promise<Session> {
  const { server, client, transport } = wanted
  const sideOf = ({ series, driver }: End, more: string[]) => {
    const program = commands[series]!
    const offload = driver === 'run'
    // Over TCP OpenVPN ends a session whose renewal both ends begin at once, as they do where one takes long to start.
    const renewal = transport === 'tcp' && offload ? 0 : RENEWAL_S
    return { program, offload, more: ['tun-mtu 1400', `reneg-sec ${renewal}`, ...more] }
  }
  const started = (running: Running, what: string) =>
    until(what, () => STARTED.test(running.stdout) || running.status !== null, PATIENCE_S)
  const far = lab.startServer(sideOf(server, [KEEPALIVE]), transport)
  let near: Running | undefined
  try {
    await started(far, 'the server starts')
    near = lab.startClient(sideOf(client, []), transport)
    await started(near, 'the client starts')
    await answers(lab.client, SERVER_VPN)
    return { wanted, lab, far, near }
  } catch (error) {
    const logs = [far, near].map((one) => `${one?.stdout}${one?.stderr}`.slice(-8000))
    throw new Error(`${JSON.stringify(wanted)}\n${logs.join('\n---\n')}`, { cause: error })
  }
}

/** A counter of ICMP in a namespace. */
async function icmp(netns: TestNetns, name: string): Promise<number> {
  const { stdout } = await run('ip', ['netns', 'exec', netns.name, 'cat', '/proc/net/snmp'])
  const [names, values] = stdout.split('\n').filter((line) => line.startsWith('Icmp:'))
  return Number(values!.split(' ')[names!.split(' ').indexOf(name)])
}

/** What becomes of echo requests while keys are renewed. */
async function renewed({
  wanted,
  lab,
  far,
}: Session): Promise<Pick<Tunnel, 'echoes' | 'renewals'>> {
  const counters = () =>
    Promise.all([
      icmp(lab.server, 'InEchos'),
      icmp(lab.server, 'OutEchoReps'),
      icmp(lab.client, 'InEchoReps'),
    ])
  const renewals = () => times(far, /Control Channel: TLSv/)
  // An end may be so late with its device that the first one finds it busy.
  if (wanted.transport === 'udp') await until('a renewal', () => renewals() > 1, PATIENCE_S)
  const before = [await counters(), renewals()] as const
  const sent = SECONDS / INTERVAL_S
  const args = ['-n', '-q', '-i', String(INTERVAL_S), '-c', String(sent), '-W', '10', SERVER_VPN]
  await run('ip', ['netns', 'exec', lab.client.name, 'ping', ...args])
  const [got, answered, came] = (await counters()).map((after, i) => after - before[0][i]!)
  return { echoes: [sent, got!, answered!, came!], renewals: renewals() - before[1] }
}

function kindOf(netns: TestNetns): string {
  return /^ {4}(ovpn|tun) /m.exec(netns.ip('-d link show dev tun0'))?.[1] ?? 'none'
}

if (import.meta.main) {
  const [v26, v27] = process.argv.slice(2)
  for (const wanted of TUNNELS) {
    const lab = openLab()
    try {
      const session = await begin(wanted, lab, { '2.6': v26!, '2.7': v27! })
      const tunnel: Tunnel = {
        ...wanted,
        kinds: [kindOf(lab.server), kindOf(lab.client)],
        ...(await renewed(session)),
        up: await iperf(lab, 1),
        down: await iperf(lab, 1, true),
        sessions: times(session.near, STARTED),
      }
      writeSync(1, `${JSON.stringify(tunnel)}\n`)
    } finally {
      await lab.close()
    }
  }
  process.exit(0)
}
