import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { InvalidArgumentError } from 'commander'
import * as parse from './arguments.ts'

type Row = [text: string, value: unknown, why: string]

/** `undefined` as value: refused, with words that say what was expected. */
function table(name: string, read: (text: string) => unknown, rows: Row[]): void {
  describe(name, () => {
    for (const [text, value, why] of rows) {
      it(`${JSON.stringify(text)}: ${why}`, () => {
        if (value !== undefined) return assert.deepEqual(read(text), value)
        assert.throws(
          () => read(text),
          (error) => error instanceof InvalidArgumentError && / expected\.$/.test(error.message),
        )
      })
    }
  })
}

table('peerId', parse.peerId, [
  ['0', 0, 'the smallest'],
  ['16777215', 0xffffff, '24 bits'],
  ['16777216', undefined, 'one more'],
  ['-1', undefined, 'negative'],
  ['1.5', undefined, 'no integer'],
  ['0x10', undefined, 'not decimal'],
  ['01', undefined, 'octal to some'],
  ['', undefined, 'nothing'],
  ['99999999999999999999', undefined, 'too long to be exact'],
])

table('workers', parse.workers, [
  ['1', 1, 'the least'],
  ['64', 64, 'the most'],
  ['0', undefined, 'nobody would move packets'],
  ['65', undefined, 'more than the driver takes'],
])

table('keyId', parse.keyId, [
  ['7', 7, '3 bits'],
  ['8', undefined, 'one more'],
])

table('hostPort', parse.hostPort, [
  ['192.0.2.1:1194', { address: '192.0.2.1', port: 1194 }, 'IPv4'],
  ['[2001:DB8:0::1]:1', { address: '2001:db8::1', port: 1 }, 'IPv6, in its canonical text'],
  ['[fe80::1%eth0]:1194', { address: 'fe80::1', zone: 'eth0', port: 1194 }, 'link-local'],
  ['2001:db8::1:1194', undefined, 'IPv6 without brackets: where would it end'],
  ['[192.0.2.1]:1194', undefined, 'IPv4 in brackets'],
  ['192.0.2.1', undefined, 'no port'],
  ['192.0.2.1:0', undefined, 'port 0 is no destination'],
  ['192.0.2.1:65536', undefined, 'beyond 16 bits'],
  ['192.0.2:1194', undefined, 'three parts'],
  ['example.org:1194', undefined, 'a name: the driver takes addresses only'],
  ['[]:1194', undefined, 'no address'],
])

table('listenAt', parse.listenAt, [
  ['1194', { address: '0.0.0.0', port: 1194 }, 'a port alone'],
  [':1194', { address: '0.0.0.0', port: 1194 }, 'as many programs write it'],
  ['[::]:1194', { address: '::', port: 1194 }, 'all of both families'],
  ['192.0.2.1:1194', { address: '192.0.2.1', port: 1194 }, 'one address'],
  ['0', undefined, 'a port that nobody would know'],
])

table('keepalive', parse.keepalive, [
  ['10,60', { interval: 10, timeout: 60 }, 'the usual'],
  ['off', { interval: 0, timeout: 0 }, 'neither'],
  ['0', { interval: 0, timeout: 0 }, 'neither'],
  ['10', undefined, 'the timeout is missing'],
  ['10,60,1', undefined, 'one too many'],
  ['10,86401', undefined, 'more than a day'],
])

table('address', parse.address, [
  ['10.8.0.2', '10.8.0.2', 'IPv4'],
  ['FD00:0::2', 'fd00::2', 'IPv6, in its canonical text'],
  ['fe80::1%1', undefined, 'a zone has no place inside the tunnel'],
  ['10.8.0.0/24', undefined, 'a network'],
])

table('newDevice', parse.newDevice, [
  ['ovpn0', 'ovpn0', 'usual'],
  ['abcdefghijklmno', 'abcdefghijklmno', '15 bytes'],
  ['abcdefghijklmnop', undefined, '16 bytes'],
  ['7', undefined, 'would be taken for an index'],
  ['a/b', undefined, 'a slash'],
  ['..', undefined, 'a path'],
  ['a b', undefined, 'a space'],
])

table('descriptor', parse.descriptor, [
  ['3', { fd: 3 }, 'of this process'],
  ['1234:7', { pid: 1234, fd: 7 }, 'of another process'],
  ['0:7', undefined, 'no process has id 0'],
  ['1:2:3', undefined, 'one too many'],
  ['x', undefined, 'no number'],
])

table('fileMode', parse.fileMode, [
  ['0660', 0o660, 'as chmod takes it'],
  ['600', 0o600, 'without the zero'],
  ['999', undefined, 'not octal'],
  ['4755', undefined, 'set-user-id has no meaning on a socket'],
])

table('cipher', parse.cipher, [
  ['AES-256-GCM', { alg: 'aes-gcm', keyBytes: 32 }, "OpenVPN's spelling"],
  ['aes-128-gcm', { alg: 'aes-gcm', keyBytes: 16 }, 'a shorter key'],
  ['chacha20-poly1305', { alg: 'chacha20-poly1305', keyBytes: 32 }, 'the other one'],
  ['none', undefined, 'never'],
  ['constructor', undefined, 'no word of ours'],
])

describe('addresses', () => {
  it('collects what is given again', () => {
    assert.deepEqual(parse.addresses('fd00::2', parse.addresses('10.8.0.2', undefined)), [
      '10.8.0.2',
      'fd00::2',
    ])
  })
})
