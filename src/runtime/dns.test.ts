/** DNS by a file: what is written, what stays, and that the former content comes back. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import type { DnsPlan } from '../openvpn/network.ts'
import { applyDns, nameservers, repairDns } from './dns.ts'

const FORMER = '# by hand\nnameserver 192.0.2.53\nsearch home.example\noptions timeout:1\n'

describe('resolv.conf', () => {
  let folder: string
  let path: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'ovpn-dns-'))
    path = join(folder, 'resolv.conf')
    writeFileSync(path, FORMER)
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  const text = () => readFileSync(path, 'utf8')
  const plan = (servers: string[], more: Partial<DnsPlan> = {}): DnsPlan => ({
    ...{ servers, searchDomains: [], routeDomains: [], ...more },
  })

  const rows: [plan: DnsPlan, lines: string[], said: RegExp | undefined, why: string][] = [
    [
      plan(['10.8.0.1', 'fd00::1']),
      ['nameserver 10.8.0.1', 'nameserver fd00::1', 'search home.example', 'options timeout:1'],
      undefined,
      'other servers, the rest as it was',
    ],
    [
      plan(['10.8.0.1'], { searchDomains: ['a.example', 'b.example'] }),
      ['nameserver 10.8.0.1', 'search a.example b.example', 'options timeout:1'],
      undefined,
      'domains to search, too',
    ],
    [
      plan([], { searchDomains: ['a.example'] }),
      ['nameserver 192.0.2.53', 'search a.example', 'options timeout:1'],
      undefined,
      'domains alone',
    ],
    [
      plan(['10.8.0.1', '10.8.0.2', '10.8.0.3', '10.8.0.4']),
      ['10.8.0.1', '10.8.0.2', '10.8.0.3']
        .map((address) => `nameserver ${address}`)
        .concat('search home.example', 'options timeout:1'),
      undefined,
      'as many as the C library reads',
    ],
    [
      plan(['10.8.0.1:5353', '10.8.0.2']),
      ['nameserver 10.8.0.2', 'search home.example', 'options timeout:1'],
      /knows no ports: 10\.8\.0\.1:5353/,
      'a port cannot be said there',
    ],
    [
      plan(['10.8.0.1'], { routeDomains: ['a.example'] }),
      ['nameserver 10.8.0.1', 'search home.example', 'options timeout:1'],
      /cannot tell domains apart/,
      'all names go to the tunnel',
    ],
  ]
  for (const [wanted, lines, said, why] of rows) {
    it(why, async () => {
      const log: string[] = []
      const undo = await applyDns('tun0', wanted, (line) => log.push(line), path, folder)
      assert.deepEqual(text().trim().split('\n').slice(1), lines)
      if (said === undefined) assert.deepEqual(log, [])
      else assert.match(log.join('\n'), said)
      await undo()
      assert.equal(text(), FORMER)
      assert.deepEqual(readdirSync(folder), ['resolv.conf'])
    })
  }

  it('stays where DNS over TLS is wanted', async () => {
    const log: string[] = []
    const wanted = plan(['10.8.0.1'], { tls: { name: undefined } })
    const undo = await applyDns('tun0', wanted, (line) => log.push(line), path, folder)
    assert.equal(text(), FORMER)
    assert.match(log.join(), /knows no DNS over TLS/)
    await undo()
    assert.equal(text(), FORMER)
  })

  it('keeps what somebody else has written meanwhile', async () => {
    const undo = await applyDns('tun0', plan(['10.8.0.1']), () => {}, path, folder)
    writeFileSync(path, 'nameserver 198.51.100.1\n')
    await undo()
    assert.equal(text(), 'nameserver 198.51.100.1\n')
  })

  it('goes again where there was none', async () => {
    rmSync(path)
    const undo = await applyDns('tun0', plan(['10.8.0.1']), () => {}, path, folder)
    assert.deepEqual(nameservers(path), ['10.8.0.1'])
    await undo()
    assert.equal(existsSync(path), false)
  })

  it('is repaired after a process that is gone, and not after one that runs', async () => {
    await applyDns('tun0', plan(['10.8.0.1']), () => {}, path, folder)
    repairDns(path, folder)
    assert.deepEqual(nameservers(path), ['10.8.0.1'])
    const [name] = readdirSync(folder).filter((one) => one.includes(`.${process.pid}.`))
    const { pid } = spawnSync('true')
    renameSync(join(folder, name!), join(folder, name!.replace(String(process.pid), String(pid))))
    const other = join(folder, 'other')
    writeFileSync(other, readFileSync(path))
    repairDns(other, folder)
    assert.deepEqual(nameservers(other), ['10.8.0.1'], "it is another file's")
    rmSync(other)
    repairDns(path, folder)
    assert.equal(text(), FORMER)
    assert.deepEqual(readdirSync(folder), ['resolv.conf'])
  })
})
