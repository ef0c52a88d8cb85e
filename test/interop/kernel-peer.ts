/**
 * OpenVPN under `ovpn run` here, and OpenVPN on the kernel's own driver at the other end: in a virtual machine with a cable to this one.
 * All TUNNELS at once, each with a port, a device and a subnet of its own:
 *
 *     near namespace, 192.0.2.129 ── tap ── QEMU ── 192.0.2.130 eth0, the machine
 *       openvpn under `ovpn run`, tun0 ...  10.8.N.0/24  ovpn0 ..., openvpn on ovpn.ko
 *
 * The machine has nothing to do but that: no Bun, no `ovpn run`; those would take ten times their time there.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Running, run } from '../command.ts'
import { againIfItDies } from '../kernel/again.ts'
import { GuestError, type GuestResult, runInKernel } from '../kernel/vm.ts'
import type { TestNetns } from '../namespace.ts'
import { type Lab, openLab, ping, times } from './openvpn.ts'
import { programs, STARTED, until } from './programs.ts'

export interface Tunnel {
  /** What our end is. */
  readonly role: 'server' | 'client'
  /** Of OpenVPN here. The kernel's driver is known to 2.7 only: 2.6 knows that of its own time. */
  readonly series: '2.6' | '2.7'
  readonly transport: 'udp' | 'tcp'
}

export const TUNNELS: readonly Tunnel[] = [
  { role: 'client', series: '2.7', transport: 'udp' },
  { role: 'server', series: '2.6', transport: 'udp' },
  { role: 'server', series: '2.7', transport: 'tcp' },
  { role: 'client', series: '2.6', transport: 'tcp' },
]

/** What became of a tunnel. */
export interface Played {
  /** What the kernel says that our interface is, and the one in the machine. */
  readonly kinds: readonly [ours: string, theirs: string]
  /** Percent of echo requests, sent from here while keys were renewed, that no answer came to. */
  readonly lost: number
  /** How often keys were renewed meanwhile, and how often the client has connected in all. */
  readonly renewals: number
  readonly sessions: number
  /** Mbit/s of TCP to the machine and from it. */
  readonly up: number
  readonly down: number
}

const PORT = 1194
const NEAR = '192.0.2.129'
const FAR = '192.0.2.130'
const TAP = 'tap0'
/** The machine ends when somebody has connected to it there. */
const END_PORT = 7000
const BUSYBOX = '/bin/busybox'
const MACHINE_MS = 300_000
/** An emulated machine is slow, the more where others use its processors. */
const PATIENCE_S = 120
const KEEPALIVE = 'keepalive 1 60'
/**
 * Of keys, at both ends over UDP, at the kernel's over TCP: OpenVPN changes to a new one after half of its own `reneg-sec`, where it
 * looks (every 15 s, if nothing else happens: TLS_MULTI_REFRESH), and gives the one before up when it begins the next.
 * Source: OpenVPN's src/openvpn/ssl.c.
 */
const RENEWAL_S = 8
const RENEWALS = 2
/** Of echo requests: some at each moment of a renewal, and few enough for an emulated processor. */
const INTERVAL_S = 0.05
/** At a time. */
const ECHOES = RENEWAL_S / INTERVAL_S

const addressOf = (i: number, role: Tunnel['role']) => `10.8.${i}.${role === 'server' ? 1 : 2}`
const other = (role: Tunnel['role']) => (role === 'server' ? 'client' : 'server')

/** Configuration of one end, as both ends have it. */
function lines({ folder }: Lab, i: number, role: Tunnel['role'], device: string): string[] {
  const { transport } = TUNNELS[i]!
  const port = `${PORT + i}`
  return [
    ...[`dev ${device}`, 'dev-type tun', `proto ${transport === 'udp' ? 'udp' : `tcp-${role}`}`],
    ...[`ca ${folder}/ca.crt`, `cert ${folder}/${role}.crt`, `key ${folder}/${role}.key`],
    ...['tun-mtu 1400', 'verb 3'],
    ...(role === 'server'
      ? [
          `port ${port}`,
          `server 10.8.${i}.0 255.255.255.0`,
          'topology subnet',
          'dh none',
          KEEPALIVE,
        ]
      : ['client', 'nobind', 'remote-cert-tls server', 'connect-retry 1 1']),
  ]
}

/** What the machine does: servers first, and the cable when they are there. */
function script(lab: Lab): string {
  const logs: string[] = []
  const begin = (role: Tunnel['role']) =>
    TUNNELS.flatMap((tunnel, i) => {
      if (tunnel.role === role) return []
      const config = join(lab.folder, `far${i}.conf`)
      const remote = role === 'client' ? [`remote ${NEAR} ${PORT + i}`] : []
      const all = [...lines(lab, i, role, `ovpn${i}`), `reneg-sec ${RENEWAL_S}`, ...remote]
      writeFileSync(config, `${all.join('\n')}\n`)
      if (role === 'server') logs.push(`${i}.log`)
      return `'${programs['2.7']}' --config '${config}' > ${i}.log 2>&1 &`
    }).join('\n')
  return `
    cd "$OVPN_OUT"
    ${begin('server')}
    for log in ${logs.join(' ')}; do until grep -q '${STARTED.source}' $log; do sleep 0.2; done; done
    iperf3 -s > /dev/null 2>&1 &
    ip addr add ${FAR}/28 dev eth0
    ip link set eth0 up
    ${begin('client')}
    ${BUSYBOX} nc -l -p ${END_PORT} < /dev/null > /dev/null
    for i in ${TUNNELS.map((_, i) => i).join(' ')}; do ip -d link show dev ovpn$i > $i.link || true; done
  `
}

function startNear(lab: Lab, i: number): Running {
  const { role, series, transport } = TUNNELS[i]!
  // Over TCP OpenVPN ends a session whose renewal both ends begin at once, as they do where one takes long to start.
  const renewal = transport === 'tcp' ? 0 : RENEWAL_S
  const more = [...lines(lab, i, role, `tun${i}`), `reneg-sec ${renewal}`]
  const side = { program: programs[series]!, offload: true, more }
  if (role === 'server') return lab.startServer(side, transport)
  const host = { ...lab.hosts[0]!, netns: lab.server }
  return lab.startClient({ ...side, host, remote: FAR, port: PORT + i }, transport)
}

/** Plays all of them. Rejects where one does not come about, with what both its ends have said. */
export function playTunnels(): Promise<Played[]> {
  return againIfItDies(play)
}

async function play(): Promise<Played[]> {
  const lab = openLab()
  const { server: netns } = lab
  const stop = new AbortController()
  const near: Running[] = []
  let guest: Promise<GuestResult> | undefined
  try {
    netns.ip(`tuntap add ${TAP} mode tap`)
    netns.ip(`addr add ${NEAR}/28 dev ${TAP}`)
    netns.ip(`link set ${TAP} up`)
    for (const role of ['server', 'client'] as const) lab.certify(role)
    const network = { netns: netns.name, tap: TAP }
    guest = runInKernel(script(lab), { timeoutMs: MACHINE_MS, network, signal: stop.signal })
    const died = guest.then(({ stdout, stderr }) => assert.fail(`it has ended: ${stdout}${stderr}`))
    died.catch(() => {}) // told where it is waited for
    const start = (role: Tunnel['role']) => {
      for (const [i, tunnel] of TUNNELS.entries()) {
        if (tunnel.role === role) near[i] = startNear(lab, i)
      }
    }
    start('server')
    // OpenVPN's first packets over UDP would find nobody, and it waits longer from one to the next.
    await Promise.race([answersAtLast(netns, FAR), died])
    start('client')
    const watched = await Promise.race([
      Promise.all(TUNNELS.map((_, i) => watch(netns, near[i]!, i))),
      died,
    ])
    const rates: Pick<Played, 'up' | 'down'>[] = []
    for (const [i, { role }] of TUNNELS.entries()) {
      const to = addressOf(i, other(role))
      rates.push({ up: await stream(netns, to, []), down: await stream(netns, to, ['-R']) })
    }
    const sessions = near.map((one) => times(one, STARTED))
    await end(netns, stop)
    const { status, stderr, files, dmesg } = await guest
    assert.equal(status, 0, stderr)
    assert.doesNotMatch(dmesg, /\b(BUG|WARNING|Oops|Call Trace):/)
    return watched.map(({ kind, ...found }, i) => ({
      ...{ ...found, ...rates[i]! },
      kinds: [kind, kindIn(textOf(files, `${i}.link`))],
      sessions: TUNNELS[i]!.role === 'client' ? sessions[i]! : started(textOf(files, `${i}.log`)),
    }))
  } catch (error) {
    if (error instanceof GuestError) throw error
    await end(netns, stop)
    const files = await guest?.then((result) => result.files).catch(() => undefined)
    const said = TUNNELS.map((tunnel, i) => {
      const ours = `${near[i]?.stdout}${near[i]?.stderr}`
      return `${JSON.stringify(tunnel)}\n${ours}\n--- the machine's end\n${textOf(files, `${i}.log`)}`
    })
    throw new Error(said.map((one) => one.slice(-8000)).join('\n'), { cause: error })
  } finally {
    stop.abort()
    await guest?.catch(() => {})
    await lab.close()
  }
}

/** The machine comes up. */
async function answersAtLast(netns: TestNetns, address: string): Promise<void> {
  const until = performance.now() + PATIENCE_S * 1000
  while ((await ping(netns, address, 1, ['-w', '1'])) > 0) {
    assert.ok(performance.now() < until, 'the machine does not come up')
  }
}

/** Has the machine's script end, or the machine, where nobody hears. */
async function end({ name }: TestNetns, stop: AbortController): Promise<void> {
  const nc = [BUSYBOX, 'nc', '-w', '10', FAR, `${END_PORT}`]
  const { status } = await run('ip', ['netns', 'exec', name, ...nc])
  if (status !== 0) stop.abort()
}

/** What becomes of echo requests while keys are renewed. */
async function watch(
  netns: TestNetns,
  near: Running,
  i: number,
): Promise<Pick<Played, 'lost' | 'renewals'> & { kind: string }> {
  const to = addressOf(i, other(TUNNELS[i]!.role))
  await until(`${to}: start`, () => STARTED.test(near.stdout) || near.status !== null, PATIENCE_S)
  await answersAtLast(netns, to)
  const renewals = () => times(near, /Control Channel: TLSv/)
  // An end may be so late with its device that the first one finds it busy.
  await until(`${to}: a renewal`, () => renewals() > 1, PATIENCE_S)
  const before = renewals()
  const last = performance.now() + PATIENCE_S * 1000
  const rounds: number[] = []
  do rounds.push(await ping(netns, to, ECHOES, ['-i', `${INTERVAL_S}`]))
  while (renewals() < before + RENEWALS && performance.now() < last)
  const lost = rounds.reduce((sum, percent) => sum + percent, 0) / rounds.length
  const kind = kindIn(netns.ip(`-d link show dev tun${i}`))
  return { lost, renewals: renewals() - before, kind }
}

/** Mbit/s of TCP. The machine's iperf3 does not listen for a moment after each stream. */
async function stream({ name }: TestNetns, to: string, more: string[]): Promise<number> {
  const args = ['iperf3', '-J', '-c', to, '-t', '1', '--connect-timeout', '5000', ...more]
  const last = performance.now() + PATIENCE_S * 1000
  for (;;) {
    const { stdout } = await run('ip', ['netns', 'exec', name, ...args])
    const { end: told, error } = JSON.parse(stdout)
    if (error === undefined) return told.sum_received.bits_per_second / 1e6
    const isBusy = /Connection refused|Connection reset|server is busy/.test(error)
    if (!isBusy || performance.now() > last) throw new Error(error)
    await sleep(200)
  }
}

function kindIn(link: string): string {
  return /^ {4}(ovpn|tun) /m.exec(link)?.[1] ?? 'none'
}

function started(log: string): number {
  return (log.match(new RegExp(STARTED, 'g')) ?? []).length
}

function textOf(files: GuestResult['files'] | undefined, name: string): string {
  return Buffer.from(files?.get(name) ?? []).toString()
}
