import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { realAddress, type ServerStatus, statusLines, timeText } from './status.ts'

const since = new Date(2026, 10, 23, 6, 58, 34)
const seen = new Date(2026, 10, 23, 6, 58, 38)
const now = new Date(2026, 10, 23, 6, 58, 42)
const unix = (date: Date) => date.getTime() / 1000

const status: ServerStatus = {
  title: 'ovpn 0.1.0',
  now,
  clients: [
    {
      id: 0,
      peerId: 7,
      commonName: 'client1',
      username: '',
      protocol: 'udp',
      remote: { address: '127.0.0.1', port: 56940, scope: 0 },
      v4: '10.99.0.2',
      routes: ['10.2.0.0/16'],
      bytesReceived: 3384,
      bytesSent: 3601,
      connectedSince: since,
      lastSeen: seen,
      cipher: 'AES-256-GCM',
    },
  ],
}

describe('statusLines', () => {
  it('1: lists for people', () => {
    assert.deepEqual(statusLines(status, 1), [
      'OpenVPN CLIENT LIST',
      'Updated,2026-11-23 06:58:42',
      'Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since',
      'client1,udp4:127.0.0.1:56940,3384,3601,2026-11-23 06:58:34',
      'ROUTING TABLE',
      'Virtual Address,Common Name,Real Address,Last Ref',
      '10.99.0.2,client1,udp4:127.0.0.1:56940,2026-11-23 06:58:38',
      '10.2.0.0/16,client1,udp4:127.0.0.1:56940,2026-11-23 06:58:38',
      'GLOBAL STATS',
      'Max bcast/mcast queue length,0',
      'END',
    ])
  })

  it('2: named columns, and every line says of which list it is', () => {
    const lines = statusLines(status, 2)
    assert.equal(lines[0], 'TITLE,ovpn 0.1.0')
    assert.equal(lines[1], `TIME,2026-11-23 06:58:42,${unix(now)}`)
    const columns = lines[2]!.split(',').slice(2)
    const [kind, ...fields] = lines[3]!.split(',')
    assert.equal(kind, 'CLIENT_LIST')
    assert.deepEqual(Object.fromEntries(columns.map((column, i) => [column, fields[i]])), {
      'Common Name': 'client1',
      'Real Address': 'udp4:127.0.0.1:56940',
      'Virtual Address': '10.99.0.2',
      'Virtual IPv6 Address': '',
      'Bytes Received': '3384',
      'Bytes Sent': '3601',
      'Connected Since': '2026-11-23 06:58:34',
      'Connected Since (time_t)': String(unix(since)),
      Username: 'UNDEF',
      'Client ID': '0',
      'Peer ID': '7',
      'Data Channel Cipher': 'AES-256-GCM',
    })
    assert.equal(lines.at(-1), 'END')
  })

  it('3: the same, separated by tabs', () => {
    const commas = statusLines(status, 2).map((line) => line.replaceAll(',', '\t'))
    assert.deepEqual(statusLines(status, 3), commas)
  })
})

it('names ends of connections as OpenVPN 2.7 does', () => {
  const remote = { address: '2001:db8::1', port: 443, scope: 0 }
  assert.equal(realAddress({ protocol: 'tcp', remote }), 'tcp6:2001:db8::1:443')
})

it('pads times', () => assert.equal(timeText(new Date(2026, 0, 2, 3, 4, 5)), '2026-01-02 03:04:05'))
