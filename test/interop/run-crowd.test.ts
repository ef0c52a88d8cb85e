/** Two hundred plain clients that come to one offloaded server at the same moment. */
// npm test: ordinary user
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Running, run } from '../command.ts'
import { openManagement } from './management.ts'
import { type Lab, OFFLOADED, openLab, ping, SERVER_VPN } from './openvpn.ts'
import { programs, STARTED, until, withoutProgram } from './programs.ts'

const CLIENTS = 200
const PATIENCE_SECONDS = 90
/** What the supervisor, in which the driver runs, may take. */
const MOST_MB = 400

describe('a crowd at an offloaded OpenVPN 2.6', { skip: withoutProgram('2.6') }, () => {
  let lab: Lab
  let server: Running
  const clients: Running[] = []
  before(async () => {
    lab = openLab()
    const more = [
      ...['tun-mtu 1400', 'server 10.8.0.0 255.255.0.0', 'keepalive 10 120', 'duplicate-cn'],
      ...['connect-freq-initial 1000 1', 'verb 2'],
      `management ${lab.folder}/server.sock unix`,
    ]
    server = lab.startServer({ program: programs['2.6']!, offload: true, more }, 'udp')
    await server.says(STARTED)
  })
  after(() => lab.close())

  it(`connects ${CLIENTS} clients`, async () => {
    const from = performance.now()
    const more = ['tun-mtu 1400', 'disable-dco', 'explicit-exit-notify 1', 'verb 1']
    for (let i = 0; i < CLIENTS; i++) {
      clients.push(lab.startClient({ program: programs['2.6']!, offload: false, more }, 'udp'))
    }
    const connected = () => clients.filter(({ stdout }) => STARTED.test(stdout)).length
    await until('all are connected', () => connected() === CLIENTS, PATIENCE_SECONDS).catch(() =>
      assert.fail(`${connected()} of ${CLIENTS} in ${PATIENCE_SECONDS} s`),
    )
    const seconds = (performance.now() - from) / 1000
    const megabytes = await supervisorMemory(server.pid)
    console.log(`${CLIENTS} clients in ${seconds.toFixed(1)} s, supervisor ${megabytes} MB`)
    assert.match(server.stdout, OFFLOADED)
    assert.ok(megabytes < MOST_MB)
  })

  it('reaches each of them', async () => {
    const addresses = await leadEachHome(lab)
    assert.equal(addresses.length, CLIENTS)
    const script = `for address; do ping -n -q -c 2 -i 0.5 -W 10 $address >/dev/null || echo $address & done; wait`
    const args = ['netns', 'exec', lab.server.name, 'sh', '-c', script, 'sh', ...addresses]
    const { stdout } = await run('ip', args)
    assert.equal(stdout, '', 'these did not answer')
    assert.equal(await ping(lab.client, SERVER_VPN), 0)
  })

  it('forgets those that say that they leave', async () => {
    const leaving = clients.slice(1)
    for (const client of leaving) client.kill('SIGTERM')
    await Promise.all(leaving.map(({ ended }) => ended))
    const management = await openManagement(`${lab.folder}/server.sock`)
    let stats = ''
    for (let i = 0; i < 30 && !/nclients=1,/.test(stats); i++) {
      await sleep(1000)
      stats = await management
        .ask('load-stats')
        .catch((error: Error) => assert.fail(`${error.message}: ${server.stdout.slice(-3000)}`))
    }
    management.close()
    assert.match(stats, /nclients=1,/)
    assert.ok(lab.server.ip('-br link').includes('tun0'))
  })
})

/** All devices are in one namespace: has each address answer through its own. Returns the addresses. */
async function leadEachHome({ client }: Lab): Promise<string[]> {
  const found = [...client.ip('-br -4 addr').matchAll(/^(tun\d+)\S* .* (10\.8\.[\d.]+)\/16/gm)]
  const lines = found.flatMap(([, device, address], i) => [
    `rule add from ${address} table ${i + 1000}`,
    `route add default dev ${device} table ${i + 1000}`,
  ])
  const { status, stderr } = await run('ip', ['-n', client.name, '-batch', '-'], {
    input: `${lines.join('\n')}\n`,
  })
  assert.equal(status, 0, stderr)
  return found.map(([, , address]) => address!)
}

/** Resident, in MB. */
async function supervisorMemory(program: number): Promise<number> {
  const { stdout } = await run('ps', ['-eo', 'rss,args'])
  const line = stdout
    .split('\n')
    .find((one) => new RegExp(`run-supervisor.* ${program} `).test(one))
  return Math.round(Number.parseInt(line!, 10) / 1024)
}
