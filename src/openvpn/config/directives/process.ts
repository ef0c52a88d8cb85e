/** Directives of the process: log, status, management interface, scripts, privileges. Source: openvpn(8) of 2.6 and 2.7. */
import {
  anyText,
  choice,
  command,
  file,
  integer,
  optional,
  rest,
  seconds,
  some,
  text,
  word,
} from '../kinds.ts'
import { both, type Directives, honoured, noop, refused } from './directive.ts'

const DAY = 86_400
const foreground = noop('the program stays in the foreground, as service managers want it')

export const process = {
  config: {
    args: { file },
    ...both(honoured),
    ccd: honoured,
    repeats: true,
    doc: 'Another file of directives, in place of this line; up to ten deep',
  },
  cd: {
    args: { directory: file },
    ...both(honoured),
    doc: 'Folder that relative paths start from',
  },
  verb: {
    args: { level: integer(0, 11) },
    ...both(honoured),
    pushed: honoured,
    doc: 'How much is logged: 0 errors, 1 who comes, goes and is refused, 2 keys, 3 steps, what is pushed and routes, 4 what was agreed on, 6 each control packet; 5 has no letters R and W, for the driver moves the packets. 1 where it is not said; 3 is good for most',
  },
  mute: {
    args: { count: integer(0, 0x7fffffff) },
    ...both(honoured),
    pushed: honoured,
    doc: 'Messages of one kind in a row that are told: those that differ in numbers only are of one kind. 0 for all',
  },
  log: { args: { file }, ...both(honoured), doc: 'File that messages go to; it begins anew' },
  'log-append': { args: { file }, ...both(honoured), doc: 'File that messages are added to' },
  'suppress-timestamps': { args: {}, ...both(honoured), doc: 'Messages without the time' },
  'machine-readable-output': {
    args: {},
    ...both(honoured),
    doc: 'Messages with the time in seconds, and flags',
  },
  'errors-to-stderr': {
    args: {},
    ...both(noop('messages go to standard error in any case, but for `log`')),
    doc: 'Errors go to standard error',
  },
  syslog: {
    args: { name: optional(word) },
    ...both(noop('messages go to standard error, which service managers take to their journal')),
    doc: 'Messages go to the system’s log',
  },
  daemon: { args: { name: optional(word) }, ...both(foreground), doc: 'Goes to the background' },
  inetd: {
    args: { values: rest(word) },
    ...both(refused('run it as a service of its own')),
    removed: '2.5',
    doc: 'Started by inetd',
  },
  service: {
    args: { values: some(word) },
    ...both(noop('only of Windows')),
    doc: 'Events of a service of Windows',
  },
  writepid: { args: { file }, ...both(honoured), doc: 'File for the process’ number' },
  status: {
    args: { file, interval: optional(seconds(0, DAY), 60_000) },
    ...both(honoured),
    doc: 'File for the state and the clients, written every so many seconds',
  },
  'status-version': {
    args: { version: integer(1, 3) },
    client: noop('the file of a client has one form'),
    server: honoured,
    doc: 'Form of that file',
  },
  user: { args: { name: word }, ...both(honoured), doc: 'User to become once all is set up' },
  group: { args: { name: word }, ...both(honoured), doc: 'Group to become once all is set up' },
  chroot: {
    args: { directory: file },
    ...both(refused('use `RootDirectory=` of systemd, or a container')),
    doc: 'Locks itself into a folder',
  },
  setcon: {
    args: { context: text },
    ...both(refused('use `SELinuxContext=` of systemd')),
    doc: 'Context of SELinux',
  },
  nice: { args: { level: integer(-20, 19) }, ...both(honoured), doc: 'Priority of the process' },
  mlock: {
    args: {},
    ...both(refused('turn off or encrypt swap, or set `MemorySwapMax=0` in the service')),
    doc: 'Keeps memory out of swap',
  },
  memstats: {
    args: { file },
    ...both(refused('use `status`, or the management interface')),
    doc: 'Statistics in a file to be mapped',
  },
  gremlin: {
    args: { mask: word },
    ...both(refused('tc(8) loses and delays packets: `tc qdisc add dev eth0 root netem …`')),
    doc: 'Loses packets on purpose',
  },
  'remap-usr1': {
    args: { signal: choice('SIGHUP', 'SIGTERM') },
    ...both(honoured),
    doc: 'What a restart becomes',
  },
  setenv: {
    args: { name: word, values: rest(anyText) },
    ...both(honoured),
    repeats: true,
    doc: 'A variable for scripts; `opt NAME …` for a directive that may be unknown; `UV_NAME` is told to the server with `push-peer-info`, `IV_GUI_VER` and `IV_SSO` always',
  },
  'ignore-unknown-option': {
    args: { names: some(word) },
    ...both(honoured),
    repeats: true,
    doc: 'Directives that may be unknown',
  },
  'script-security': {
    args: { level: integer(0, 3), method: optional(choice('execve', 'system')) },
    ...both(honoured),
    doc: 'Which programs may be run: 2 for scripts, 3 for scripts that are given passwords',
  },
  'tmp-dir': {
    args: { directory: file },
    client: noop('scripts of a client are given no files'),
    server: honoured,
    doc: 'Folder of files that scripts are given',
  },
  iproute: {
    args: { command },
    ...both(noop('addresses and routes are set without a program')),
    doc: 'Program that sets addresses and routes',
  },
  up: { args: { command }, ...both(honoured), doc: 'Command for when the interface is there' },
  down: { args: { command }, ...both(honoured), doc: 'Command for when it is gone' },
  'down-pre': { args: {}, ...both(honoured), doc: 'Runs `down` before the interface goes' },
  'up-restart': {
    args: {},
    client: honoured,
    server: noop('a restart makes the interface anew, and runs `down` and `up` in any case'),
    doc: 'Runs `down` and `up` for restarts too',
  },
  'up-delay': {
    args: {},
    ...both(noop('a client has no interface before that, and a server waits for nobody')),
    doc: 'Runs `up` only once a server was reached',
  },
  ipchange: {
    args: { command },
    client: honoured,
    server: refused('use `learn-address` or `client-connect`'),
    doc: 'Command for when the server’s address is known or has changed',
  },
  'route-up': { args: { command }, ...both(honoured), doc: 'Command for when routes are set' },
  'route-pre-down': {
    args: { command },
    ...both(honoured),
    doc: 'Command for before routes are removed',
  },
  management: {
    args: { address: text, port: text, password: optional(file) },
    ...both(honoured),
    doc: 'Management interface: an address and port, or a path and the word `unix`; and a file with its password',
  },
  'management-client': {
    args: {},
    ...both(honoured),
    doc: 'Connects to who manages, in place of listening',
  },
  'management-query-passwords': {
    args: {},
    ...both(honoured),
    doc: 'Asks there for passwords',
  },
  'management-query-proxy': { args: {}, client: honoured, doc: 'Asks there for a proxy' },
  'management-query-remote': { args: {}, client: honoured, doc: 'Asks there about each server' },
  'management-hold': { args: {}, ...both(honoured), doc: 'Waits to be told to begin' },
  'management-signal': {
    args: {},
    ...both(honoured),
    doc: 'Restarts or ends when who manages has gone',
  },
  'management-forget-disconnect': {
    args: {},
    client: honoured,
    server: noop('a server has no passwords to forget'),
    doc: 'Forgets passwords when who manages has gone',
  },
  'management-up-down': {
    args: {},
    client: honoured,
    doc: 'Tells there of the interface’s coming and going',
  },
  'management-log-cache': {
    args: { lines: integer(1, 1_000_000, 'lines') },
    ...both(honoured),
    doc: 'Messages that are kept to be asked for',
  },
  'management-client-auth': {
    args: {},
    server: honoured,
    doc: 'Lets who manages decide about clients',
  },
  'management-client-user': {
    args: { name: word },
    ...both(honoured),
    doc: 'User who may manage, over a Unix socket',
  },
  'management-client-group': {
    args: { name: word },
    ...both(honoured),
    doc: 'Group that may manage, over a Unix socket',
  },
  'management-external-key': {
    args: { algorithms: rest(word) },
    ...both(refused('TLS here signs with a key it has: `key FILE`')),
    doc: 'Lets who manages sign for the certificate',
  },
  'management-external-cert': {
    args: { hint: text },
    ...both(refused('name the certificate with `cert`')),
    doc: 'Asks who manages for the certificate',
  },
  'management-client-pf': {
    args: {},
    server: refused('filter packets with nftables'),
    removed: '2.6',
    doc: 'Packet filters of clients',
  },
} satisfies Directives
