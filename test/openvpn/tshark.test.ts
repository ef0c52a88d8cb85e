/** Wireshark's reader of OpenVPN, as another's opinion on our control packets: a whole session of our server with our client, without a complaint. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { run, start } from '../command.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, type Outside, Peers } from './peers.ts'

const skip =
  withoutProgram('2.6') ||
  (!existsSync('/usr/bin/tshark') && 'tshark is not installed (Debian package tshark)')

/** The reader knows packets without a wrap, and those of tls-auth; what tls-crypt hides, it takes for unknown bytes. */
const CASES: [name: string, number: number, outside: Outside, own: string[], other: string[]][] = [
  ['UDP', 3, 'udp', [], []],
  ['TCP', 4, 'tcp', [], []],
  ['UDP with tls-auth', 5, 'udp', ['tls-auth ta.key 0'], ['tls-auth ta.key 1']],
]

describe('control packets as tshark reads them', { skip }, () => {
  let peers: Peers

  before(async () => {
    peers = await Peers.open()
    await peers.genkey('tls-auth', 'ta.key')
  })
  after(() => peers?.close())

  for (const [name, number, outside, own, other] of CASES) {
    it(name, async () => {
      const { lab } = peers
      const host = lab.addHost()
      const file = join(lab.folder, `${number}.pcap`)
      const server = await peers.server('ours', number, [...identity('server'), ...own])
      const capture = start('ip', [
        ...[
          'netns',
          'exec',
          lab.server.name,
          'tcpdump',
          '-Z',
          'root',
          '-U',
          '--immediate-mode',
          '-i',
          host.serverDevice,
        ],
        ...['-w', file, 'port', `${1194 + number}`],
      ])
      await capture.says(/listening on/)
      const client = peers.client('ours', number, [...identity('client'), ...other], {
        ...{ outside, host },
      })
      await client.says(STARTED)
      client.kill('SIGTERM')
      await client.ended
      await until('the server to see it gone', () => / gone after /.test(server.stdout), 30)
      capture.kill('SIGINT')
      await capture.ended

      const decode = ['-d', `${outside}.port==${1194 + number},openvpn`]
      const fields = [
        'openvpn.opcode',
        '_ws.malformed',
        '_ws.expert.severity',
        'tls.record.content_type',
      ]
      const { stdout, stderr, status } = await run('tshark', [
        ...['-n', '-r', file, ...decode, '-Y', 'openvpn', '-T', 'fields', '-E', 'occurrence=a'],
        ...fields.flatMap((field) => ['-e', field]),
      ])
      assert.equal(status, 0, stderr)
      const packets = stdout.split('\n').filter((line) => line !== '')
      const opcodes = new Set(packets.flatMap((line) => line.split('\t')[0]!.split(',')))
      // Resets of both ends, TLS, acknowledgements.
      for (const opcode of ['0x07', '0x08', '0x04', '0x05']) {
        assert.ok(opcodes.has(opcode), `${opcode} among ${[...opcodes].join(' ')}`)
      }
      const complaints = packets.filter((line) => {
        const [, malformed, severity] = line.split('\t')
        return malformed !== '' || severity !== ''
      })
      assert.deepEqual(complaints, [])
      assert.ok(
        packets.some((line) => line.split('\t')[3] !== ''),
        'TLS was put together of its pieces',
      )
    })
  }
})
