/**
 * Dialect B, the generic-netlink family `ovpn-dco-v2` (2023), which OpenVPN 2.6.2 and later 2.6 speak. It parses
 * strictly and counts inside and outside the tunnel apart; control packets stay on the socket. Source: netlink-api 4.
 */
import { delReason } from '../spec.ts'
import { dcoCommands, packetTable } from './dco.ts'
import { createDialect, linkCommands, packetCommands, topNumbers } from './dialect.ts'

const { whole, commands, event } = dcoCommands({
  name: 'ovpn-dco-v2',
  numbers: {
    ifindex: 1,
    'new-peer': 2,
    'set-peer': 3,
    'del-peer': 4,
    'new-key': 5,
    'swap-keys': 6,
    'del-key': 7,
    'get-peer': 8,
    packet: topNumbers.packet,
    extended: topNumbers.extended,
  },
  getPeer: 7,
  delReasons: delReason,
  cipherNone: false,
  linkCounters: {
    'link-rx-bytes': 13,
    'link-tx-bytes': 14,
    'link-rx-packets': 15,
    'link-tx-packets': 16,
  },
  linkCountersAlways: true,
})

const relay = packetCommands(whole, packetTable, { register: 67, packet: 68 })

export const ovpnDcoV2 = createDialect({
  name: 'ovpn-dco-v2',
  linkKind: 'ovpn-dco',
  policy: 'strict',
  maxattr: 8,
  commands: {
    'peer-new': commands['peer-new'],
    'peer-set': commands['peer-set'],
    'peer-del': commands['peer-del'],
    'peer-get': commands['peer-get'],
    'key-new': commands['key-new'],
    'key-del': commands['key-del'],
    'key-swap': commands['key-swap'],
    ...linkCommands,
    ...relay.commands,
  },
  events: { 'peer-del-ntf': event, packet: relay.event },
})
