/**
 * Dialect A, the generic-netlink family `ovpn-dco` of the RFC v2 (2022), which OpenVPN 2.6.0 and 2.6.1 speak. It
 * parses leniently, counts packets once, and relays control packets itself. Source: netlink-api 3.
 */
import { dcoCommands, packetTable } from './dco.ts'
import { createDialect, linkCommands, packetCommands, topNumbers } from './dialect.ts'

const { whole, commands, event } = dcoCommands({
  name: 'ovpn-dco',
  numbers: {
    ifindex: 1,
    'new-peer': 2,
    'set-peer': 3,
    'del-peer': 4,
    'new-key': 5,
    'swap-keys': 6,
    'del-key': 7,
    packet: 8,
    'get-peer': 9,
    extended: topNumbers.extended,
  },
  getPeer: 9,
  delReasons: ['teardown', 'userspace', 'expired', 'transport-error'],
  cipherNone: true,
  linkCounters: {
    'link-rx-bytes': 69,
    'link-tx-bytes': 70,
    'link-rx-packets': 71,
    'link-tx-packets': 72,
  },
  linkCountersAlways: false,
})

const relay = packetCommands(whole, packetTable, { register: 7, packet: 8 })

export const ovpnDco = createDialect({
  name: 'ovpn-dco',
  linkKind: 'ovpn-dco',
  policy: 'lenient',
  maxattr: 9,
  commands: {
    'peer-new': commands['peer-new'],
    'peer-set': commands['peer-set'],
    'peer-del': commands['peer-del'],
    'peer-get': commands['peer-get'],
    'key-new': commands['key-new'],
    'key-del': commands['key-del'],
    'key-swap': commands['key-swap'],
    ...relay.commands,
    ...linkCommands,
  },
  events: { 'peer-del-ntf': event, packet: relay.event },
})
