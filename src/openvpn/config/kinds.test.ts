import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  command,
  constant,
  device,
  domain,
  either,
  fingerprint,
  host,
  integer,
  ipv4,
  ipv6,
  ipv6Network,
  ipv6Prefix,
  type Kind,
  netmask,
  parseWith,
  port,
  seconds,
} from './kinds.ts'

const wait = either(constant('infinite', Infinity), seconds(1, 60))
const none = either(constant('*', undefined), host)
const hash = `${'AB:'.repeat(31)}ab`

describe('kinds of arguments', () => {
  const rows: [kind: Kind<unknown>, text: string, value: unknown, why: string][] = [
    [port, '0', 0, 'the lowest'],
    [port, '65535', 65_535, 'the highest'],
    [port, '65536', undefined, 'one more'],
    [port, '', undefined, 'nothing'],
    [port, ' 1', undefined, 'space'],
    [port, '+1', undefined, 'a sign'],
    [port, '0x10', '0x10', 'no number: a name, if there is one'],
    [port, 'https', 'https', 'a service'],
    [port, '3com-tsmux', '3com-tsmux', 'one that begins with a digit'],
    [port, 'a b', undefined, 'no name'],
    [port, '-a', undefined, 'an option'],
    [integer(-5, 5), '-5', -5, 'below zero'],
    [integer(0, Infinity), '999999999999999', 999_999_999_999_999, 'bytes of a long time'],
    [integer(0, Infinity), '9999999999999999', undefined, 'more than a number holds'],
    [seconds(1, 60), '60', 60_000, 'in milliseconds'],
    [wait, 'infinite', Infinity, 'a word'],
    [wait, '5', 5000, 'or seconds'],
    [wait, '61', undefined, 'or neither'],
    [none, '*', undefined, 'a word that stands for nothing'],
    [ipv4, '10.8.0.1', '10.8.0.1', 'four parts'],
    [ipv4, '10.8.1', undefined, 'three'],
    [ipv4, '10.8.0.256', undefined, 'too large'],
    [ipv4, '010.8.0.1', undefined, 'perhaps octal'],
    [ipv6, '2001:DB8:0:0::1', '2001:db8::1', 'in its shortest form'],
    [ipv6, 'fe80::1%eth0', undefined, 'of an interface'],
    [ipv6, '1.2.3.4', undefined, 'of the other kind'],
    [netmask, '255.255.254.0', '255.255.254.0', 'ones, then zeros'],
    [netmask, '0.0.0.0', '0.0.0.0', 'zeros alone'],
    [netmask, '255.255.255.255', '255.255.255.255', 'ones alone'],
    [netmask, '0.255.0.0', undefined, 'zeros first'],
    [ipv6Prefix(64, 124), 'fd00::/64', { address: 'fd00::', prefix: 64 }, 'at the limit'],
    [ipv6Prefix(64, 124), 'fd00::/63', undefined, 'beyond it'],
    [ipv6Prefix(0, 128), 'fd00::', undefined, 'without a length'],
    [ipv6Network, 'fd00::5', { address: 'fd00::5', prefix: 128 }, 'one address'],
    [ipv6Network, 'fd00::/129', undefined, 'more bits than there are'],
    [host, 'vpn.example.', 'vpn.example.', 'a name to its root'],
    [host, 'bücher.example', 'bücher.example', 'letters of all kinds'],
    [host, '_vpn.example', '_vpn.example', 'an underscore'],
    [host, '2001:db8::1', '2001:db8::1', 'an address'],
    [host, '-x', undefined, 'a dash first'],
    [host, 'a b', undefined, 'a space'],
    [host, 'a/b', undefined, 'a path'],
    [host, `${'a'.repeat(60)}.`.repeat(5), undefined, 'too long'],
    [domain, '.', '.', 'all of them'],
    [domain, '.corp.example', '.corp.example', 'all below'],
    [device, 'tun0', 'tun0', 'a name'],
    [device, 'a'.repeat(16), undefined, 'longer than the kernel takes'],
    [device, '..', undefined, 'a folder'],
    [command, '  ', undefined, 'nothing to run'],
    [fingerprint, hash, 'ab'.repeat(32), 'with colons, in capitals'],
    [fingerprint, 'ab'.repeat(20), 'ab'.repeat(20), 'SHA-1'],
    [fingerprint, 'ab'.repeat(31), undefined, 'a byte short'],
  ]
  for (const [kind, text, value, why] of rows) {
    it(`${kind.expects}: ${JSON.stringify(text.slice(0, 30))}: ${why}`, () =>
      assert.deepEqual(parseWith(kind, text), value))
  }
})
