/**
 * Tests of several clients of one server under `ovpn run`, offloaded and plain, each with a cipher of its own: what passes
 * between them, what is counted, and what becomes of them when one or the other ends, restarts or falls silent. For a
 * server of either series, in a file of its own each.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Running } from '../command.ts'
import { type Management, openManagement } from './management.ts'
import {
  answers,
  forward,
  type Host,
  type Lab,
  OFFLOADED,
  openLab,
  ping,
  SERVER_VPN,
  SERVER_VPN6,
  times,
  transfer,
} from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

const CLIENTS = [
  { name: 'anna', series: '2.6', offload: true, cipher: 'AES-128-GCM' },
  { name: 'bert', series: '2.7', offload: true, cipher: 'AES-192-GCM' },
  { name: 'cleo', series: '2.6', offload: false, cipher: 'CHACHA20-POLY1305' },
  { name: 'dora', series: '2.7', offload: false, cipher: 'AES-256-GCM' },
] as const
type Name = (typeof CLIENTS)[number]['name']

/** Those that send more than others. */
const LOADED: Name[] = ['anna', 'cleo']
/** In the tunnel. */
const addressOf = (name: Name) => `10.8.0.1${CLIENTS.findIndex((one) => one.name === name)}`
const address6Of = (name: Name) => `fd00:8::1${CLIENTS.findIndex((one) => one.name === name)}`

/** Behind Anna. */
const NET = { ipv4: '10.77.0.1', ipv6: 'fd00:77::1' }
/** What OpenVPN complains of with the kernel's driver too. */
const KNOWN: [text: string, why: string][] = [
  [
    'cannot store DCO stats for peer',
    'asked for counters while it forgets a peer (2.6, issue 792)',
  ],
  ['netlink reports object not found', 'asked for a peer that is not there yet, or has expired'],
  ['failed to send netlink message: No such file or directory', 'the same, once more'],
  ['rtnl: generic error (-101)', 'the kernel, asked for a way to everywhere where there is none'],
  ['netlink reports error (-4)', 'it has read already what woke it (2.6)'],
]
/** Seconds without a packet, after which the other end is given up: by a client; the server waits twice that. */
const PATIENCE = 3

export function testClientsOf(series: string): void {
  const skip = withoutProgram(series, '2.6', '2.7')
  describe(`clients of an offloaded OpenVPN ${series}`, { skip }, () => {
    let lab: Lab
    let server: Running
    let management: Management
    const clients = {} as { [name in Name]: Running }
    const owns = {} as { [name in Name]: Management }
    const hosts = {} as { [name in Name]: Host }
    const file = (name: string) => join(lab.folder, name)
    const begin = async (name: Name) => {
      const { offload, cipher, series } = CLIENTS.find((one) => one.name === name)!
      const more = [
        ...['tun-mtu 1400', `data-ciphers ${cipher}`, 'explicit-exit-notify 1'],
        ...[
          `management ${file(name)}.sock unix`,
          'management-hold',
          ...(offload ? [] : ['disable-dco']),
        ],
      ]
      clients[name] = lab.startClient(
        { program: programs[series]!, offload, host: hosts[name], name, more },
        'udp',
      )
      rmSync(file(`${name}.sock`), { force: true }) // of one that was killed
      const own = await openManagement(file(`${name}.sock`))
      owns[name] = own
      // OpenVPN 2.6 with offload looks at this before it connects, or much later.
      for (const command of ['bytecount 1', 'hold off', 'hold release']) await own.ask(command)
      await clients[name].says(STARTED)
    }
    const sessions = (name: Name) => times(clients[name], STARTED)
    const allReached = () =>
      Promise.all(CLIENTS.map(({ name }) => answers(hosts[name].netns, SERVER_VPN)))
    /** Of whom the server's status file tells, and how many bytes it has received from and sent to each. */
    const listed = () => {
      const line = /^CLIENT_LIST,([^,]*),[^,]*,[^,]*,[^,]*,(\d+),(\d+),.*$/gm
      const found = [...readFileSync(file('status'), 'utf8').matchAll(line)]
      return new Map(
        found.map(([, name, received, sent]): [string, [number, number]] => [
          name!,
          [Number(received), Number(sent)],
        ]),
      )
    }

    before(async () => {
      lab = openLab()
      mkdirSync(file('ccd'))
      for (const { name } of CLIENTS) {
        hosts[name] = lab.hosts[Object.keys(hosts).length] ?? lab.addHost()
        const lines = [
          `ifconfig-push ${addressOf(name)} 255.255.255.0`,
          `ifconfig-ipv6-push ${address6Of(name)}/64`,
          ...(name === 'anna'
            ? ['iroute 10.77.0.0 255.255.255.0', 'iroute-ipv6 fd00:77::/64']
            : []),
        ]
        writeFileSync(join(file('ccd'), name), `${lines.join('\n')}\n`)
      }
      hosts.anna.netns.ip(`addr add ${NET.ipv4}/24 dev lo`)
      hosts.anna.netns.ip(`addr add ${NET.ipv6}/64 dev lo`)
      forward(lab.server)
      const more = [
        ...['tun-mtu 1400', 'server-ipv6 fd00:8::/64', `keepalive 1 ${PATIENCE}`],
        `data-ciphers ${CLIENTS.map(({ cipher }) => cipher).join(':')}`,
        ...['client-to-client', 'explicit-exit-notify 1', `client-config-dir ${file('ccd')}`],
        ...['route 10.77.0.0 255.255.255.0', 'route-ipv6 fd00:77::/64'],
        ...['push "route 10.77.0.0 255.255.255.0"', 'push "route-ipv6 fd00:77::/64"'],
        ...[`status ${file('status')} 1`, `management ${file('server.sock')} unix`],
      ]
      server = lab.startServer({ program: programs[series]!, offload: true, more }, 'udp')
      await server.says(STARTED)
      await Promise.all(CLIENTS.map(({ name }) => begin(name)))
      await allReached()
      management = await openManagement(file('server.sock'))
      await management.ask('bytecount 1')
      await until('the first status', () => listed().size === CLIENTS.length)
    })
    after(async () => {
      management?.close()
      await lab.close()
    })

    it('are offloaded where they are to be', () => {
      assert.match(server.stdout, OFFLOADED)
      for (const { name, offload } of CLIENTS) {
        assert.equal(OFFLOADED.test(clients[name].stdout), offload, name)
      }
    })

    for (const { name, cipher } of CLIENTS) {
      it(`${name} has ${cipher} at both ends, and packets pass`, async () => {
        const pushed = new RegExp(`SENT CONTROL \\[${name}\\]: .*cipher ${cipher}`)
        assert.ok(pushed.test(server.stdout), 'the server has chosen it')
        assert.ok(clients[name].stdout.includes(`Data Channel: cipher '${cipher}'`))
        const { netns } = hosts[name]
        const lost = [
          ping(netns, SERVER_VPN),
          ping(netns, SERVER_VPN6),
          ping(netns, SERVER_VPN, 5, ['-s', '3000']),
          ping(lab.server, addressOf(name)),
          ping(lab.server, address6Of(name)),
        ]
        assert.deepEqual(await Promise.all(lost), [0, 0, 0, 0, 0])
        await transfer({ from: netns, to: lab.server, address: SERVER_VPN })
        await transfer({ from: netns, to: lab.server, address: SERVER_VPN6 })
        await transfer({ from: lab.server, to: netns, address: address6Of(name) })
      })
    }

    it('reach each other through the host', async () => {
      const lost = CLIENTS.flatMap(({ name }) =>
        CLIENTS.filter((other) => other.name !== name).flatMap((other) => [
          ping(hosts[name].netns, addressOf(other.name), 3),
          ping(hosts[name].netns, address6Of(other.name), 3),
        ]),
      )
      assert.deepEqual(new Set(await Promise.all(lost)), new Set([0]))
      const ends = { from: hosts.bert.netns, to: hosts.cleo.netns, address: addressOf('cleo') }
      await transfer(ends)
    })

    it('reach the network behind one of them', async () => {
      const lost = [
        ping(lab.server, NET.ipv4),
        ping(lab.server, NET.ipv6),
        ping(hosts.dora.netns, NET.ipv4),
        ping(hosts.dora.netns, NET.ipv6),
        ping(hosts.anna.netns, addressOf('bert'), 5, ['-I', NET.ipv4]),
      ]
      assert.deepEqual(await Promise.all(lost), [0, 0, 0, 0, 0])
    })

    it('are counted as they count themselves', async () => {
      const counted = (name: Name) => {
        const [received, sent] = listed().get(name) ?? [0, 0]
        const [down, up] = lastOf(owns[name], /^>BYTECOUNT:(\d+),(\d+)/)
        return { received, up, sent, down }
      }
      await sleep(2000) // both ends tell once a second
      const before = new Map(CLIENTS.map(({ name }) => [name, counted(name)]))
      // Upwards, where the server keeps up with whoever sends: what is lost on the way is counted at one end only.
      for (const name of LOADED) {
        await transfer({ from: hosts[name].netns, to: lab.server, address: SERVER_VPN })
      }
      const count = 20
      const bytes = count * (1000 + 28 + 24) // payload, its headers, and those of the tunnel
      const pings = ({ name }: { name: Name }) =>
        ping(lab.server, addressOf(name), count, ['-s', '1000'])
      await Promise.all(CLIENTS.map(pings))
      for (const { name } of CLIENTS) {
        const isLoaded = LOADED.includes(name)
        const had = before.get(name)!
        const agree = () => {
          const has = counted(name)
          const received = has.received - had.received
          const sent = has.sent - had.sent
          return (
            received >= (isLoaded ? 1e7 : bytes) &&
            near(received, has.up - had.up) &&
            (isLoaded || (sent >= bytes && near(sent, has.down - had.down)))
          )
        }
        await until(`counters of ${name}`, agree).catch(() =>
          assert.fail(`${name}: ${JSON.stringify([had, counted(name)])}`),
        )
      }
      assert.match(await management.ask('load-stats'), /^SUCCESS: nclients=4,/)
      if (series === '2.7') {
        const told = management.told.filter((line) => line.startsWith('>BYTECOUNT_CLI')).slice(-4)
        for (const [received, sent] of listed().values()) {
          const isIt = (line: string) => {
            const [, up, down] = line.split(',')
            return near(Number(up), received) && near(Number(down), sent)
          }
          assert.ok(told.some(isIt), `${[received, sent]} in ${told}`)
        }
      }
    })

    it('come back after a restart of theirs', async () => {
      const again = ['anna', 'bert', 'dora'] as const
      for (const name of again) clients[name].kill(name === 'bert' ? 'SIGHUP' : 'SIGUSR1')
      for (const name of again) await until(`${name} again`, () => sessions(name) === 2, 20)
      await allReached()
      assert.equal(sessions('cleo'), 1)
    })

    it('are forgotten: at once where they say so, else when they have been silent', async () => {
      clients.anna.kill('SIGTERM')
      clients.bert.kill('SIGKILL')
      clients.dora.kill('SIGKILL')
      const from = performance.now()
      const lost = ping(hosts.cleo.netns, SERVER_VPN, 50)
      const isAlone = () => [...listed().keys()].join() === 'cleo'
      await until('all are forgotten but one', isAlone, 2 * PATIENCE + 10)
      const seconds = (performance.now() - from) / 1000
      assert.ok(seconds > PATIENCE, `forgotten after ${seconds} s`)
      assert.equal(await lost, 0)
      assert.match(clients.anna.stdout, /SIGTERM\[soft,exit-with-notification\] received/)
      assert.ok(/anna\/.* exit message received by peer/.test(server.stdout))
      assert.ok(!lab.server.ip('route').includes('10.77.0.0/24 via 10.8.0.10 '), 'its iroute')
      await Promise.all((['anna', 'bert', 'dora'] as const).map(begin))
      await allReached()
      assert.equal(await ping(hosts.dora.netns, NET.ipv4), 0)
    })

    for (const [signal, of] of [
      ['SIGUSR1', 'keeps what its configuration says'],
      ['SIGHUP', 'reads its configuration anew'],
    ] as const) {
      it(`come back when the server restarts on ${signal}: ${of}`, async () => {
        const starts = times(server, STARTED)
        const had = CLIENTS.map(({ name }) => sessions(name))
        server.kill(signal)
        await until('the server again', () => times(server, STARTED) > starts, 20)
        for (const [i, { name }] of CLIENTS.entries()) {
          await until(`${name} again`, () => sessions(name) > had[i]!, 30)
          assert.ok(times(clients[name], /Connection reset command was pushed by server/) > 0)
        }
        await allReached()
        assert.equal(await ping(hosts.dora.netns, NET.ipv6), 0)
      })
    }

    it('notice that the server is gone', async () => {
      // A busy machine's client may have lost the server a moment ago, and then has nothing to notice.
      for (const { name } of CLIENTS) await until(`${name} is up`, () => isUp(clients[name]), 30)
      await allReached()
      // A client of 2.7 that asks for counters of a peer that has just expired restarts for that, before it reads why.
      for (const { name } of CLIENTS) await owns[name].ask('bytecount 0')
      const silent = /Inactivity timeout \(--ping-restart\)|ping-restart.*restarting|ping timeout/
      const had = CLIENTS.map(({ name }) => times(clients[name], silent))
      server.kill('SIGKILL')
      for (const [i, { name }] of CLIENTS.entries()) {
        const notices = () => times(clients[name], silent) > had[i]!
        await until(`${name} notices`, notices, PATIENCE + 10).catch((cause: unknown) => {
          throw new Error(clients[name].stdout.slice(-4000), { cause })
        })
      }
      await until('its interface goes', () => !lab.server.ip('-br link').includes('tun0'))
    })

    it("log no trouble that the kernel's driver would not give them", () => {
      const about = /dco|netlink|rtnl|net_iface|net_addr|net_route/i
      const trouble = /warn|error|fail|cannot|unable|unexpected|unknown|invalid|not found/i
      for (const one of [server, ...Object.values(clients)]) {
        const lines = (one.stdout + one.stderr).split('\n')
        const found = lines.filter((line) => about.test(line) && trouble.test(line))
        assert.deepEqual(
          found.filter((line) => !KNOWN.some(([text]) => line.includes(text))),
          [],
        )
      }
    })
  })
}

function isUp({ stdout }: Running): boolean {
  const lastOf = (text: string) => stdout.lastIndexOf(text)
  return lastOf('Initialization Sequence Completed') > lastOf('process restarting')
}

/** The numbers in the last line that it has told of this kind. */
function lastOf({ told }: Management, kind: RegExp): [number, number] {
  const line = told.findLast((one) => kind.test(one))
  const [, first, second] = kind.exec(line ?? '') ?? []
  return [Number(first), Number(second)]
}

/** What two ends have counted, a second apart: pings of the tunnel and control packets may be between. */
const near = (one: number, other: number) => Math.abs(one - other) < 500
