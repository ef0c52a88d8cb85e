/** Directives that servers alone have, and those of single clients there. Source: openvpn(8) of 2.6 and 2.7. */
import {
  anyText,
  choice,
  command,
  constant,
  either,
  file,
  integer,
  ipv4,
  ipv6,
  ipv6Network,
  ipv6Prefix,
  netmask,
  optional,
  rest,
  seconds,
  text,
  word,
} from '../kinds.ts'
import { type Directives, honoured, noop, refused } from './directive.ts'

/** OpenVPN takes these in the profile of a client too. */
const ofServers = noop('only servers have it to do')
const MONTHS = 31_536_000

export const server = {
  server: {
    args: { network: ipv4, netmask, nopool: optional(choice('nopool')) },
    server: honoured,
    doc: 'Serves clients with addresses of a network; the server has the first',
  },
  'server-ipv6': {
    args: { network: ipv6Prefix(64, 124) },
    server: honoured,
    doc: 'Serves clients with addresses of an IPv6 network',
  },
  'ifconfig-pool': {
    args: { start: ipv4, end: ipv4, netmask: optional(netmask) },
    server: honoured,
    doc: 'First and last address for clients',
  },
  'ifconfig-ipv6-pool': {
    args: { network: ipv6Prefix(64, 124) },
    server: honoured,
    doc: 'First IPv6 address for clients, and length of the prefix',
  },
  'ifconfig-pool-persist': {
    args: { file, interval: optional(seconds(0, MONTHS), 600_000) },
    server: honoured,
    doc: 'File that keeps which client had which address; with 0 it is only read',
  },
  'ifconfig-pool-linear': {
    args: {},
    server: refused('use `topology subnet`'),
    removed: '2.5',
    doc: 'Single addresses in place of networks of four',
  },
  'ifconfig-push': {
    args: { local: ipv4, remote: ipv4, alias: optional(ipv4) },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    doc: 'Address of a client, and the netmask',
  },
  'ifconfig-ipv6-push': {
    args: { local: ipv6Prefix(0, 128), remote: optional(ipv6) },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    doc: 'IPv6 address of a client',
  },
  'ifconfig-push-constraint': {
    args: { network: ipv4, netmask },
    server: honoured,
    doc: 'Network that addresses of `ifconfig-push` must be of',
  },
  push: {
    args: { option: text },
    client: ofServers,
    server: honoured,
    ccd: honoured,
    repeats: true,
    doc: 'An option for clients',
  },
  'push-reset': {
    args: {},
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    doc: 'Leaves out what is pushed to all clients',
  },
  'push-remove': {
    args: { prefix: text },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    repeats: true,
    doc: 'Leaves out what contains a text of what is pushed to all clients',
  },
  iroute: {
    args: { network: ipv4, netmask: optional(netmask, '255.255.255.255') },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    repeats: true,
    doc: 'A network behind a client',
  },
  'iroute-ipv6': {
    args: { network: ipv6Network },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    repeats: true,
    doc: 'An IPv6 network behind a client',
  },
  disable: {
    args: {},
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    doc: 'Refuses a client',
  },
  'override-username': {
    args: { name: text },
    ccd: honoured,
    server: refused('it belongs into a client’s file in `client-config-dir`'),
    since: '2.7',
    doc: 'User name of a client from now on',
  },
  'client-config-dir': {
    args: { directory: file },
    server: honoured,
    doc: 'Folder of files of single clients, named by common name; `DEFAULT` is of all others',
  },
  'ccd-exclusive': {
    args: {},
    server: honoured,
    doc: 'Refuses clients that have no file there',
  },
  'client-to-client': {
    args: {},
    server: honoured,
    doc: 'Lets clients reach each other within the server, past the system’s firewall',
  },
  'duplicate-cn': {
    args: {},
    server: honoured,
    doc: 'Lets several clients have one common name at once',
  },
  'max-clients': {
    args: { count: integer(1, 0xffffff, 'a number of clients') },
    client: ofServers,
    server: honoured,
    doc: 'Clients at once',
  },
  'max-routes-per-client': {
    args: { count: integer(1, 0x7fffffff) },
    client: ofServers,
    server: honoured,
    doc: 'Networks behind one client',
  },
  'connect-freq': {
    args: { count: integer(1, 0x7fffffff), interval: seconds(1, 86_400) },
    server: honoured,
    doc: 'New clients within so many seconds',
  },
  'connect-freq-initial': {
    args: { count: integer(1, 0x7fffffff), interval: seconds(1, 86_400) },
    client: ofServers,
    server: honoured,
    since: '2.6',
    doc: 'Answers to first packets within so many seconds',
  },
  'stale-routes-check': {
    args: { age: seconds(1, MONTHS), interval: optional(seconds(1, MONTHS)) },
    server: noop('addresses are not learned from packets: there is nothing to forget'),
    doc: 'Forgets learned addresses',
  },
  'verify-client-cert': {
    args: { mode: optional(choice('none', 'optional', 'require'), 'require') },
    server: honoured,
    doc: 'Whether clients need a certificate',
  },
  'client-cert-not-required': {
    args: {},
    server: refused('write `verify-client-cert none`'),
    removed: '2.5',
    doc: 'Clients need no certificate',
  },
  'auth-user-pass-verify': {
    args: { command, method: choice('via-env', 'via-file') },
    server: honoured,
    client: noop('of servers; the profile was perhaps made from a server’s configuration'),
    doc: 'Command that decides about name and password',
  },
  'auth-user-pass-optional': {
    args: {},
    server: honoured,
    doc: 'Lets clients send no name and password',
  },
  'username-as-common-name': {
    args: {},
    server: honoured,
    doc: 'The user name is the common name',
  },
  'auth-gen-token': {
    args: {
      lifetime: optional(seconds(0, MONTHS), 0),
      renewal: optional(either(constant('external-auth', 'external-auth'), seconds(1, MONTHS))),
      external: optional(choice('external-auth')),
    },
    server: honoured,
    doc: 'Gives clients a token that they send in place of the password',
  },
  'auth-gen-token-secret': {
    args: { file },
    server: honoured,
    inline: true,
    since: '2.5',
    doc: 'Key of tokens, so that they outlive a restart: `ovpn genkey auth-token`',
  },
  'client-connect': {
    args: { command },
    server: honoured,
    doc: 'Command that is run for a client, and may write settings for it',
  },
  'client-disconnect': {
    args: { command },
    server: honoured,
    doc: 'Command that is run when a client is gone',
  },
  'client-crresponse': {
    args: { command },
    server: honoured,
    since: '2.6',
    doc: 'Command that is run for a client’s answer to a challenge',
  },
  'learn-address': {
    args: { command },
    server: honoured,
    doc: 'Command that is told which client has which address',
  },
  plugin: {
    args: { file, values: rest(anyText) },
    server: refused(
      'plugins are native code for another program; use a script (`auth-user-pass-verify`, `client-connect` …), the management interface, or the library’s `authenticate`',
    ),
    client: refused('plugins are native code for another program; use a script'),
    repeats: true,
    doc: 'Loads native code',
  },
  'opt-verify': {
    args: {},
    server: noop('options of both ends are settled by negotiation'),
    removed: '2.5',
    doc: 'Refuses clients whose options do not fit',
  },
  'no-name-remapping': {
    args: {},
    server: refused(
      'names in certificates are always made safe; scripts find the original in X509_0_CN',
    ),
    removed: '2.5',
    doc: 'Leaves odd characters in names',
  },
  'compat-names': {
    args: { what: optional(word) },
    server: refused('names of certificates are written as in OpenVPN since 2.3'),
    removed: '2.5',
    doc: 'Older form of names in certificates',
  },
} satisfies Directives
