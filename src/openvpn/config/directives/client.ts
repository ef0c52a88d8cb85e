/** Directives of clients: what they take from a server, and how they prove who they are. Source: openvpn(8) of 2.6 and 2.7. */
import {
  anyText,
  choice,
  file,
  integer,
  optional,
  rest,
  some,
  text,
  variable,
  word,
} from '../kinds.ts'
import { type Directives, honoured, noop } from './directive.ts'

/** OpenVPN takes these in the configuration of a server too. */
const ofClients = noop('only clients have it to do')

export const client = {
  pull: { args: {}, client: honoured, doc: 'Takes options from the server' },
  'pull-filter': {
    args: { action: choice('accept', 'ignore', 'reject'), prefix: text },
    server: ofClients,
    client: honoured,
    repeats: true,
    doc: 'What becomes of pushed options that begin with a text; `reject` lets go of the server',
  },
  'auth-user-pass': {
    args: { file: optional(file) },
    client: honoured,
    inline: true,
    doc: 'Name and password: asked for, on two lines of a file, or with `username-only` no password',
  },
  'auth-nocache': {
    args: {},
    client: honoured,
    server: noop('a server has no passwords to forget'),
    doc: 'Forgets passwords once they are sent',
  },
  'auth-retry': {
    args: { type: choice('none', 'nointeract', 'interact') },
    server: ofClients,
    client: honoured,
    doc: 'What to do where the password was refused: end, try again, ask again',
  },
  'auth-token': {
    args: { token: text },
    client: honoured,
    pushed: honoured,
    doc: 'Sent in place of the password from now on',
  },
  'auth-token-user': {
    args: { user: text },
    client: honoured,
    pushed: honoured,
    since: '2.5',
    doc: 'User name to go with it, in base64',
  },
  'static-challenge': {
    args: {
      prompt: text,
      echo: choice('0', '1'),
      format: optional(choice('scrv1', 'concat'), 'scrv1'),
    },
    server: ofClients,
    client: honoured,
    doc: 'A second answer that is asked for with the password',
  },
  echo: {
    args: { words: rest(anyText) },
    client: honoured,
    server: honoured,
    ccd: noop('only clients have somebody to tell'),
    pushed: honoured,
    repeats: true,
    doc: 'Text for the management interface',
  },
  parameter: {
    args: { words: rest(anyText) },
    client: honoured,
    server: honoured,
    pushed: honoured,
    repeats: true,
    doc: 'The same as `echo`',
  },
  'client-ip': {
    args: { address: anyText },
    client: noop('of OpenVPN Connect'),
    doc: 'An extra of OpenVPN Connect',
  },
  // What follows stands in replies of servers alone.
  'peer-id': {
    args: { id: integer(0, 0xffffff, 'a peer id') },
    pushed: honoured,
    doc: 'Number of this client in data packets',
  },
  'protocol-flags': {
    args: { flags: some(word) },
    pushed: honoured,
    since: '2.6',
    doc: 'What both ends can do: `cc-exit`, `tls-ekm`, `dyn-tls-crypt`, `aead-epoch`',
  },
  'key-derivation': {
    args: { method: word },
    pushed: honoured,
    since: '2.6',
    doc: '`tls-ekm`: data keys come from TLS’ exporter',
  },
  'push-continuation': {
    args: { more: choice('0', '1', '2') },
    pushed: honoured,
    update: true,
    doc: 'Whether more of the reply follows',
  },
  'custom-control': {
    args: { values: rest(anyText) },
    pushed: noop('of OpenVPN 3’s application channel'),
    doc: 'Application channel of OpenVPN 3',
  },
  'setenv-safe': {
    args: { name: variable, value: optional(anyText, '') },
    client: honoured,
    server: honoured,
    pushed: honoured,
    repeats: true,
    doc: 'A variable OPENVPN_NAME for scripts',
  },
} satisfies Directives
