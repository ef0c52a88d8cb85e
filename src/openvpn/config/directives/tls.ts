/** Directives of keys, certificates and ciphers. Source: openvpn(8) of 2.6 and 2.7. */
import {
  choice,
  colonList,
  command,
  file,
  fingerprint,
  integer,
  optional,
  rest,
  seconds,
  some,
  text,
  word,
} from '../kinds.ts'
import { both, type Directives, honoured, noop, refused } from './directive.ts'

const MONTHS = 31_536_000
const BYTES = Infinity
const always = noop('settled between both ends in each handshake')
const direction = choice('0', '1')
const framing =
  'the offloaded data channel adds no framing; clients that have `comp-lzo` are told to leave it in any case'

export const tls = {
  'tls-client': { args: {}, client: honoured, doc: 'The part of the client in TLS' },
  'tls-server': { args: {}, server: honoured, doc: 'The part of the server in TLS' },
  ca: {
    args: { file },
    ...both(honoured),
    inline: true,
    doc: 'Certificates that those of peers must lead to',
  },
  capath: {
    args: { directory: file },
    ...both(honoured),
    doc: 'Folder of such certificates, named by hash',
  },
  cert: { args: { file }, ...both(honoured), inline: true, doc: 'Certificate of this end' },
  key: { args: { file }, ...both(honoured), inline: true, doc: 'Its private key' },
  'extra-certs': {
    args: { file },
    ...both(honoured),
    inline: true,
    doc: 'Certificates between ours and the root',
  },
  pkcs12: {
    args: { file },
    ...both(honoured),
    inline: true,
    doc: 'Certificate, key and roots in one file; inline in base64',
  },
  askpass: {
    args: { file: optional(file) },
    ...both(honoured),
    doc: 'Password of the private key: asked for, or the first line of a file',
  },
  dh: {
    args: { file },
    server: noop('keys are agreed on with elliptic curves'),
    client: noop('keys are agreed on with elliptic curves'),
    inline: true,
    doc: 'Parameters of Diffie-Hellman over finite fields',
  },
  'ecdh-curve': {
    args: { name: word },
    ...both(noop('`tls-groups` names curves')),
    removed: '2.6',
    doc: 'Curve for agreeing on keys',
  },
  'crl-verify': {
    args: { file, directory: optional(choice('dir')) },
    ...both(honoured),
    inline: true,
    doc: 'Certificates that were revoked; with `dir` a folder of files named by serial number. Read again when it changes',
  },
  'verify-hash': {
    args: { hash: fingerprint, algorithm: optional(choice('SHA1', 'SHA256'), 'SHA1') },
    ...both(honoured),
    inline: true,
    doc: 'Fingerprint of the certificate that issued the peer’s',
  },
  'peer-fingerprint': {
    args: { fingerprint },
    ...both(honoured),
    inline: true,
    repeats: true,
    since: '2.6',
    doc: 'SHA-256 fingerprint of a certificate that a peer may have, in place of `ca` or beside it',
  },
  'remote-cert-tls': {
    args: { type: choice('server', 'client') },
    ...both(honoured),
    doc: 'What the peer’s certificate must be made for',
  },
  'remote-cert-ku': {
    args: { usages: rest(word) },
    ...both(honoured),
    doc: 'Key usages that the peer’s certificate must have, hexadecimal',
  },
  'remote-cert-eku': {
    args: { usage: text },
    ...both(honoured),
    doc: 'Extended key usage that the peer’s certificate must have',
  },
  'verify-x509-name': {
    args: { name: text, type: optional(choice('subject', 'name', 'name-prefix'), 'subject') },
    ...both(honoured),
    doc: 'Subject or common name that the peer’s certificate must have',
  },
  'tls-verify': {
    args: { command },
    ...both(honoured),
    doc: 'Command that decides about each certificate of the peer',
  },
  'tls-export-cert': {
    args: { directory: file },
    ...both(refused('`tls-verify` is given the certificate’s subject, serial numbers and digests')),
    doc: 'Writes the peer’s certificate to a file for scripts',
  },
  'x509-username-field': {
    args: { fields: some(word) },
    ...both(honoured),
    doc: 'Field of the subject that is taken for the common name',
  },
  'x509-track': {
    args: { attribute: word },
    ...both(noop('scripts are given all attributes of the subject')),
    repeats: true,
    doc: 'Attributes of certificates that scripts are given',
  },
  'tls-cert-profile': {
    args: { profile: choice('insecure', 'legacy', 'preferred', 'suiteb') },
    ...both(honoured),
    doc: 'How strong certificates must be',
  },
  'tls-auth': {
    args: { file, direction: optional(direction) },
    ...both(honoured),
    connection: true,
    inline: true,
    doc: 'Key that authenticates control packets',
  },
  'key-direction': {
    args: { direction },
    ...both(honoured),
    connection: true,
    doc: 'Which half of the key of `tls-auth` this end sends with, where that is inline',
  },
  'tls-crypt': {
    args: { file },
    ...both(honoured),
    connection: true,
    inline: true,
    doc: 'Key that encrypts and authenticates control packets',
  },
  'tls-crypt-v2': {
    args: { file, cookie: optional(choice('force-cookie', 'allow-noncookie')) },
    ...both(honoured),
    connection: true,
    inline: true,
    since: '2.5',
    doc: 'As `tls-crypt`, with a key for each client',
  },
  'tls-crypt-v2-verify': {
    args: { command },
    server: honoured,
    since: '2.5',
    doc: 'Command that decides about the metadata in a client’s key',
  },
  'tls-crypt-v2-max-age': {
    args: { days: integer(1, 36_500, 'days') },
    server: honoured,
    since: '2.7',
    doc: 'Age at which keys of clients are refused',
  },
  auth: {
    args: { digest: word },
    ...both(honoured),
    doc: 'Digest of `tls-auth`, and of data ciphers that do not authenticate',
  },
  cipher: {
    args: { cipher: word },
    ...both(honoured),
    ccd: honoured,
    pushed: honoured,
    doc: 'Cipher for peers that cannot negotiate (before OpenVPN 2.4); others have `data-ciphers`',
  },
  'data-ciphers': {
    args: { ciphers: colonList },
    ...both(honoured),
    since: '2.5',
    doc: 'Ciphers of data packets, preferred first; `?NAME` where it may be missing, `DEFAULT` for the usual',
  },
  'ncp-ciphers': {
    args: { ciphers: colonList },
    ...both(honoured),
    doc: 'Older name of `data-ciphers`',
  },
  'data-ciphers-fallback': {
    args: { cipher: word },
    ...both(honoured),
    ccd: honoured,
    since: '2.5',
    doc: 'Cipher for peers that say nothing about ciphers',
  },
  'ncp-disable': {
    args: {},
    ...both(always),
    removed: '2.6',
    doc: 'Negotiates no cipher',
  },
  'tls-version-min': {
    args: {
      version: choice('1.0', '1.1', '1.2', '1.3'),
      highest: optional(choice('or-highest')),
    },
    ...both(honoured),
    doc: 'Oldest version of TLS that is spoken',
  },
  'tls-version-max': {
    args: { version: choice('1.0', '1.1', '1.2', '1.3') },
    ...both(honoured),
    doc: 'Newest version of TLS that is spoken',
  },
  'tls-cipher': {
    args: { ciphers: colonList },
    ...both(honoured),
    doc: 'Ciphers of TLS 1.2 and older',
  },
  'tls-ciphersuites': {
    args: { ciphers: colonList },
    ...both(noop('TLS 1.3 is spoken with the three suites that all have')),
    doc: 'Ciphers of TLS 1.3',
  },
  'tls-groups': {
    args: { groups: colonList },
    ...both(honoured),
    since: '2.5',
    doc: 'Curves for agreeing on keys, preferred first',
  },
  'force-tls-key-material-export': {
    args: {},
    ...both(honoured),
    since: '2.6',
    doc: 'Takes only peers that derive data keys with TLS’ exporter',
  },
  'tls-timeout': {
    args: { wait: seconds(1, 65_535) },
    ...both(honoured),
    doc: 'Seconds until a control packet is sent again',
  },
  'hand-window': {
    args: { window: seconds(1, MONTHS) },
    ...both(honoured),
    doc: 'Seconds that a handshake may take',
  },
  'tran-window': {
    args: { window: seconds(1, MONTHS) },
    ...both(honoured),
    doc: 'Seconds that old keys live beside new ones',
  },
  'reneg-sec': {
    args: { max: seconds(0, MONTHS), min: optional(seconds(0, MONTHS)) },
    ...both(honoured),
    doc: 'Seconds after which keys are renewed; 0 for never',
  },
  'reneg-bytes': {
    args: { bytes: integer(0, BYTES, 'bytes') },
    ...both(honoured),
    doc: 'Bytes after which keys are renewed',
  },
  'reneg-pkts': {
    args: { packets: integer(0, BYTES, 'packets') },
    ...both(honoured),
    doc: 'Packets after which keys are renewed',
  },
  'replay-window': {
    args: { packets: integer(0, 65_536, 'packets'), window: optional(seconds(0, 600)) },
    ...both(noop('the driver’s window is fixed, and wide enough for what networks reorder')),
    doc: 'How late a packet may come',
  },
  'replay-persist': {
    args: { file },
    ...both(noop('keys of data never outlive a session; first packets are protected by a cookie')),
    doc: 'Keeps packet ids over restarts',
  },
  'mute-replay-warnings': {
    args: {},
    ...both(noop('repeated packets are counted, not told one by one')),
    doc: 'No warnings of repeated packets',
  },
  compress: {
    args: { algorithm: optional(choice('stub', 'stub-v2', 'lz4', 'lz4-v2', 'lzo', 'migrate')) },
    ...both(honoured),
    ccd: refused(framing),
    pushed: honoured,
    doc: 'Framing of compression, without compressing. Servers do as with `migrate` in any case',
  },
  'comp-lzo': {
    args: { mode: optional(choice('yes', 'no', 'adaptive')) },
    ...both(honoured),
    ccd: refused(framing),
    pushed: honoured,
    doc: 'Framing of LZO, without compressing. A client fails unless the server replaces it; a server does as with `compress migrate`',
  },
  'comp-noadapt': {
    args: {},
    ...both(noop('nothing is compressed')),
    doc: 'No adaptive compression',
  },
  'allow-compression': {
    args: { mode: choice('no', 'asym', 'yes') },
    ...both(noop('nothing is compressed, and nothing that is compressed is taken')),
    since: '2.5',
    doc: 'Whether packets may be compressed',
  },
  'compat-mode': {
    args: { version: word },
    ...both(honoured),
    since: '2.6',
    doc: 'Ciphers and versions of TLS that older peers need',
  },
  'push-peer-info': {
    args: {},
    client: honoured,
    doc: 'Tells the server more about this end: hardware address, TLS library, system, and `UV_NAME` of `setenv`',
  },
  'single-session': {
    args: {},
    client: noop('a client takes no sessions that the other end begins'),
    doc: 'Takes one session only',
  },
  'tls-exit': {
    args: {},
    client: honoured,
    doc: 'Ends where a handshake fails',
  },
  'keying-material-exporter': {
    args: { label: text, length: integer(16, 4095, 'bytes') },
    ...both(refused('plugins alone could read it, and there are none here')),
    doc: 'Key material for plugins',
  },
  providers: {
    args: { names: some(word) },
    ...both(refused('TLS here is BoringSSL, which has no providers')),
    since: '2.6',
    doc: 'Providers of OpenSSL',
  },
  engine: {
    args: { name: optional(word) },
    ...both(refused('TLS here is BoringSSL, which has no engines')),
    doc: 'Hardware for ciphers',
  },
  secret: {
    args: { file, direction: optional(direction) },
    ...both(
      refused('a fixed key protects nobody once it is known; use certificates: `ovpn pki init`'),
    ),
    inline: true,
    doc: 'One fixed key in place of TLS',
  },
  'allow-deprecated-insecure-static-crypto': {
    args: {},
    ...both(refused('there is no mode of fixed keys here')),
    since: '2.6',
    doc: 'Permits `secret`',
  },
} satisfies Directives
