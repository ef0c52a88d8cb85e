/**
 * Directives that belong elsewhere: to Windows, to smart cards, to the command line of OpenVPN, to its past.
 * Source: openvpn(8) of 2.6 and 2.7, "Unsupported options" there, and its list of changes.
 */
import { anyText, rest, some, text, word } from '../kinds.ts'
import { both, type Directive, type Directives, noop, refused } from './directive.ts'

const any = { values: rest(anyText) }
const windows = (doc: string) =>
  ({ args: any, ...both(noop('only of Windows')), pushed: noop('only of Windows'), doc }) as const
const command = (instead: string, doc: string) =>
  ({ args: any, ...both(refused(instead)), doc }) satisfies Directive
const card = (doc: string) =>
  ({
    args: any,
    ...both(refused('smart cards cannot be used by the TLS of this program: name a `key` file')),
    doc,
  }) satisfies Directive
const notHere = 'it is a command of openvpn(8), not a setting; run it there'

export const elsewhere = {
  'allow-nonadmin': windows('Rights to an adapter'),
  cryptoapicert: {
    args: { select: some(anyText) },
    ...both(refused('only of Windows: name `cert` and `key`')),
    doc: 'Certificate from the store of Windows',
  },
  'dhcp-internal': windows('Address by DHCP'),
  'dhcp-pre-release': windows('Address by DHCP'),
  'dhcp-release': windows('Address by DHCP'),
  'dhcp-renew': windows('Address by DHCP'),
  'ip-win32': windows('How addresses are set'),
  'msg-channel': windows('Channel to the service'),
  'pause-exit': windows('Waits for a key at the end'),
  'rdns-internal': windows('Tells Windows to register names'),
  'route-method': windows('How routes are set'),
  'tap-sleep': windows('Waits for the adapter'),
  'win-sys': windows('Folder of the system'),
  'windows-driver': windows('Driver of the adapter'),

  'pkcs11-cert-private': card('Access to a certificate on a card'),
  'pkcs11-id': card('Certificate on a card'),
  'pkcs11-id-management': card('Certificate on a card, chosen by who manages'),
  'pkcs11-pin-cache': card('How long a card’s PIN is kept'),
  'pkcs11-private-mode': card('How a card signs'),
  'pkcs11-protected-authentication': card('How a card asks for its PIN'),
  'pkcs11-providers': card('Libraries for cards'),

  help: command('try `ovpn --help`', 'Shows options'),
  version: command('try `ovpn --version`', 'Shows the version'),
  genkey: command('use `ovpn genkey`', 'Makes keys'),
  mktun: command('use `ovpn link add`, or `ip tuntap add`', 'Makes an interface that stays'),
  rmtun: command('use `ovpn link del`, or `ip tuntap del`', 'Removes an interface'),
  'test-crypto': command(notHere, 'Tests ciphers'),
  'show-adapters': command(notHere, 'Shows adapters'),
  'show-ciphers': command('docs/DIRECTIVES.md names them at `data-ciphers`', 'Shows ciphers'),
  'show-curves': command(notHere, 'Shows curves'),
  'show-digests': command(notHere, 'Shows digests'),
  'show-engines': command(notHere, 'Shows engines'),
  'show-gateway': command('try `ip route get ADDRESS`', 'Shows the default gateway'),
  'show-groups': command(notHere, 'Shows curves'),
  'show-net': command('try `ip address; ip route`', 'Shows the network'),
  'show-net-up': command('try `ip address; ip route`', 'Shows the network once connected'),
  'show-pkcs11-ids': command(notHere, 'Shows certificates on a card'),
  'show-tls': command(notHere, 'Shows ciphers of TLS'),
  'show-valid-subnets': command(notHere, 'Shows networks of four addresses'),

  'disable-occ': {
    args: {},
    ...both(noop('options of both ends are settled by negotiation')),
    doc: 'Does not compare options of both ends',
  },
  'key-method': {
    args: { method: word },
    ...both(noop('it has been 2 for everybody since OpenVPN 2.5')),
    removed: '2.5',
    doc: 'Older exchange of keys',
  },
  keysize: {
    args: { bits: word },
    ...both(noop('the name of a cipher tells the size of its key')),
    removed: '2.6',
    doc: 'Size of the key of a cipher',
  },
  'no-iv': {
    args: {},
    ...both(refused('it takes protection away; remove the line at both ends')),
    removed: '2.5',
    doc: 'No initialisation vectors',
  },
  'no-replay': {
    args: {},
    ...both(refused('it takes protection away; remove the line')),
    removed: '2.7',
    doc: 'Takes repeated packets',
  },
  'ns-cert-type': {
    args: { type: word },
    ...both(refused('write `remote-cert-tls` with the same word')),
    removed: '2.5',
    doc: 'What the peer’s certificate must be made for',
  },
  prng: {
    args: any,
    ...both(noop('random numbers are those of the system')),
    removed: '2.6',
    doc: 'Source of random numbers',
  },
  'tls-remote': {
    args: { name: text },
    ...both(refused('write `verify-x509-name NAME name`')),
    removed: '2.4',
    doc: 'Name that the peer’s certificate must have',
  },
  'use-prediction-resistance': {
    args: {},
    ...both(noop('random numbers are those of the system')),
    removed: '2.7',
    doc: 'Source of random numbers',
  },
} satisfies Directives
