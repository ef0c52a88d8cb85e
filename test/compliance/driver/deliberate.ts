/** Where the user-space driver answers otherwise than the kernel's, and means it. docs/API.md gives the same reasons. */
import type { Deliberate } from './compare.ts'

const ANSWER = 'messages\\.0\\.'

export const deliberate: readonly Deliberate[] = [
  {
    step: /./,
    place: /(messages|answers)\.0\.text$/,
    when: (kernel) => kernel === undefined,
    reason: 'of errors are our own, and are there where the kernel has none.',
  },
  {
    step: /./,
    place: /(messages|answers)\.0\.policy$/,
    when: (_, user) => user === undefined,
    reason: 'An attribute that breaks a rule is named by its offset; the rule itself is not sent.',
  },
  {
    step: /^attributes: peer-get, top-level attribute 66$/,
    place: /errno$/,
    reason: 'Attributes from 64 up are our extensions, with rules of their own.',
  },
  {
    step: /^links: new, (mode|a mode of no bytes|a name of 16)/,
    place: /offset$/,
    reason: 'Refusals of rtnetlink requests name no offset.',
  },
  {
    step: /^links: (new, without CREATE|change, an index that is not there)$/,
    place: /errno$/,
    reason: 'A link that is not ours is EOPNOTSUPP: it is for the kernel to answer.',
  },
  {
    step: /./,
    place: /^system\.(txqlen|qdisc|max_mtu)$/,
    reason: 'The interface is a TUN device: it has a queue and allows any MTU up to 65535.',
  },
  {
    step: /^sending: its counters$/,
    place: /counters\.tx(Packets|Bytes)$/,
    reason: 'The counters of the interface are about packets inside the tunnel, both ways.',
  },
  {
    step: /^sending: its counters$/,
    place: /counters\.txDropped$/,
    reason: 'A packet for a peer that no route leads to is counted as dropped.',
  },
  {
    step: /^sockets: new, connected UDP/,
    place: new RegExp(`^$|^${ANSWER}`),
    reason: 'A connected UDP socket is refused: the kernel would give it its data packets, too.',
  },
  {
    step: /^declared: /,
    place: /^(far|counters)/,
    reason: 'What protocol the stack calls a packet is not told to us: its first byte decides.',
  },
  {
    step: /^streams: length [01]$/,
    place: /^extra\.program/,
    reason: 'A stream that cannot be read any further ends for the program; there is no errno.',
  },
]
