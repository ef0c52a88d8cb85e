/**
 * Dialect C, the generic-netlink family `ovpn` of Linux 6.16 and later, which OpenVPN 2.7 speaks: the specification's
 * own numbers, widths and nests. Source: include/uapi/linux/ovpn.h, drivers/net/ovpn/netlink.c, netlink-api 5.
 */
import { ApiError } from '../errno.ts'
import {
  type Command,
  commands,
  EXTENSION_BASE,
  keyconf,
  keydir,
  type Message,
  notifications,
  packet,
  peer,
  top,
} from '../spec.ts'
import type { CommandName, KeyConf, PeerNew } from '../types.ts'
import { camel, checkCipher, checkPeer, select, table, type Values } from '../validate.ts'
import {
  createDialect,
  type Form,
  formOf,
  linkCommands,
  packetCommands,
  packetNumbers,
  peerNumbers,
  peerTables,
  topNumbers,
  type Wired,
} from './dialect.ts'

const peerTable = table(
  peer,
  {
    id: 1,
    'remote-ipv4': 2,
    'remote-ipv6': 3,
    'remote-ipv6-scope-id': 4,
    'remote-port': 5,
    socket: 6,
    'socket-netnsid': 7,
    'vpn-ipv4': 8,
    'vpn-ipv6': 9,
    'local-ipv4': 10,
    'local-ipv6': 11,
    'local-port': 12,
    'keepalive-interval': 13,
    'keepalive-timeout': 14,
    'del-reason': 15,
    'vpn-rx-bytes': 16,
    'vpn-tx-bytes': 17,
    'vpn-rx-packets': 18,
    'vpn-tx-packets': 19,
    'link-rx-bytes': 20,
    'link-tx-bytes': 21,
    'link-rx-packets': 22,
    'link-tx-packets': 23,
    'tx-id': 24,
    ...peerNumbers,
  },
  peerTables,
)

const direction = table(keydir, { 'cipher-key': 1, 'nonce-tail': 2 })

const keyNumbers = {
  'peer-id': 1,
  slot: 2,
  'key-id': 3,
  'cipher-alg': 4,
  'encrypt-dir': 5,
  'decrypt-dir': 6,
  format: 64,
  'key-size': 65,
  epoch: 66,
} as const
const keyTables = { 'encrypt-dir': direction, 'decrypt-dir': direction } as const
const keyTable = table(keyconf, keyNumbers, keyTables)

/** The kernel announces the key id with two bytes, though its specification says four (netlink-api 5.2). */
const announcedKey = table(keyconf, keyNumbers, keyTables, {
  'key-id': { ...keyconf['key-id'], type: 'u16' },
})

const packetTable = table(packet, packetNumbers)

const whole = table(
  top,
  { ifindex: 1, peer: 2, keyconf: 3, ...topNumbers },
  { peer: peerTable, keyconf: keyTable, packet: packetTable },
)

const tables = { peer: peerTable, keyconf: keyTable, packet: packetTable } as const

function form(message: Message): Form {
  const inner =
    message.nest === undefined || message.nest === 'link' ? undefined : tables[message.nest]
  return formOf(whole, inner, message)
}

function wired(command: CommandName, number: number): Wired {
  const spec: Command = commands[command]
  return {
    number,
    ...(spec.do && { do: form(spec.do) }),
    ...(spec.dump && { dump: form(spec.dump) }),
    ...(spec.reply && { reply: form(spec.reply) }),
  }
}

/** With a check of the handler's on what the nest holds. */
function checked(command: 'peer-new' | 'peer-set', number: number): Wired {
  const plain = wired(command, number)
  const fromWire = (values: Values): Values => ({
    ...values,
    peer: checkPeer(values.peer as PeerNew),
  })
  return { ...plain, do: { ...plain.do!, fromWire } }
}

/** The kernel's driver refuses attributes it does not know, so those of a key as it has them are left out. */
function keyNew(number: number): Wired {
  const plain = wired('key-new', number)
  return {
    ...plain,
    do: {
      ...plain.do!,
      toWire: (values) => ({ ...values, keyconf: plainKey(values.keyconf as KeyConf) }),
      fromWire: (values) => ({ ...values, keyconf: checkCipher(values.keyconf as KeyConf) }),
    },
  }
}

function plainKey({ format, keySize, ...key }: KeyConf): Values {
  if (format === 'epoch') return { ...key, format, keySize }
  return key
}

/** Order of a peer's attributes in replies (netlink-api 5.3), ours behind the kernel's. */
const peerOrder = [
  'socket-netnsid',
  'id',
  'tx-id',
  'vpn-ipv4',
  'vpn-ipv6',
  'keepalive-interval',
  'keepalive-timeout',
  'remote-ipv4',
  'remote-ipv6',
  'remote-ipv6-scope-id',
  'remote-port',
  'local-ipv4',
  'local-ipv6',
  'local-port',
  'vpn-rx-bytes',
  'vpn-rx-packets',
  'vpn-tx-bytes',
  'vpn-tx-packets',
  'link-rx-bytes',
  'link-rx-packets',
  'link-tx-bytes',
  'link-tx-packets',
  'transport',
  'mssfix',
  'swap-wait-ms',
  'last-rx-ms',
  'last-tx-ms',
  'keys',
  'drops',
]

/**
 * A command that reads: the kernel's policy lets `others` pass, and its handler refuses them afterwards.
 * Source: netlink-api 5.2.
 */
function reading(wired: Wired, nest: 'peer' | 'keyconf', others: readonly string[]): Wired {
  const { table: plain, inner: needed = [] } = wired.do!
  const { required, fields } = plain
  const optional = fields.map(({ name }) => name).filter((name) => !required.includes(name))
  const inner = select(tables[nest], needed, others)
  const known = needed.map(camel)
  return {
    ...wired,
    do: {
      ...wired.do!,
      table: select(whole, required, optional, { [nest]: inner }),
      fromWire(values) {
        const extra = Object.keys(values[nest] as Values).find((key) => !known.includes(key))
        if (extra === undefined) return values
        throw new ApiError('EINVAL', 'unexpected attribute', `${nest}.${extra}`)
      },
    },
  }
}

/** All of the kernel's attributes of a peer but its id. */
const peerOthers = peerTable.fields
  .filter(({ name, number }) => name !== 'id' && number < EXTENSION_BASE)
  .map(({ name }) => name)

const peerGet = reading(wired('peer-get', 3), 'peer', peerOthers)
const relay = packetCommands(whole, packetTable, { register: 67, packet: 68 })

export const ovpn = createDialect({
  name: 'ovpn',
  linkKind: 'ovpn',
  policy: 'strict',
  maxattr: 0,
  commands: {
    'peer-new': checked('peer-new', 1),
    'peer-set': checked('peer-set', 2),
    'peer-get': { ...peerGet, reply: { ...peerGet.reply!, inner: peerOrder } },
    'peer-del': wired('peer-del', 4),
    'key-new': keyNew(6),
    'key-get': reading(wired('key-get', 7), 'keyconf', ['key-id', 'cipher-alg']),
    'key-swap': wired('key-swap', 8),
    'key-del': wired('key-del', 10),
    ...linkCommands,
    ...relay.commands,
  },
  events: {
    'peer-del-ntf': {
      number: 5,
      form: { ...form(notifications['peer-del-ntf'].message), inner: ['del-reason', 'id'] },
    },
    'key-swap-ntf': {
      number: 9,
      form: formOf(
        table(top, { ifindex: 1, keyconf: 3 }, { keyconf: announcedKey }),
        announcedKey,
        notifications['key-swap-ntf'].message,
      ),
    },
    'peer-float-ntf': {
      number: 11,
      form: {
        ...form(notifications['peer-float-ntf'].message),
        inner: ['id', 'remote-ipv4', 'remote-ipv6', 'remote-ipv6-scope-id', 'remote-port'],
      },
    },
    packet: relay.event,
  },
})
