/**
 * Messages, right and wrong: for every command each attribute missing, empty, too short, too long, out of range,
 * unknown, in a command that does not take it, and wrongly marked; headers, flags and dumps. Source: netlink-api 1, 5.
 */
import { NLM_F } from '../../../../src/netlink/message.ts'
import type { CommandName } from '../../../../src/uapi/types.ts'
import { INSIDE, OUTSIDE } from '../lab.ts'
import { keyconf } from '../packets.ts'
import { type Device, genl, type Item, NESTED, type Stage } from '../stage.ts'

const PEER = 2
const KEYCONF = 3
const u16 = (value: number) => Uint8Array.of(value & 0xff, value >> 8)
const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer)
const be16 = (value: number) => Uint8Array.of(value >> 8, value & 0xff)
const v4 = (text: string) => Uint8Array.from(text.split('.').map(Number))
const v6 = (last: number) => Uint8Array.of(0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last)
const filled = (bytes: number, value = 7) => new Uint8Array(bytes).fill(value)

const IDS = { known: 1, free: 2 } as const

/** Values that the attributes of a peer could have, by number. */
const peerValue = (socket: number): Record<number, Uint8Array> => ({
  1: u32(IDS.free),
  2: v4(OUTSIDE),
  3: v6(2),
  4: u32(2),
  5: be16(2000),
  6: u32(socket),
  7: u32(0),
  8: v4('10.8.0.2'),
  9: v6(0x82),
  10: v4(INSIDE),
  11: v6(1),
  12: be16(2000),
  13: u32(0),
  14: u32(0),
  15: u32(1),
  16: u32(1),
  20: u32(1),
  23: u32(1),
  24: u32(9),
  25: u32(1),
  64: u32(1),
})

const direction: Item[] = [
  [1, filled(32)],
  [2, filled(8)],
]

const keyValue: Record<number, Uint8Array | readonly Item[]> = {
  1: u32(IDS.known),
  2: u32(0),
  3: u32(1),
  4: u32(1),
  5: direction,
  6: direction,
  7: u32(1),
  8: u32(1),
}

interface Row {
  readonly command: CommandName
  readonly number: number
  readonly nest: number
  /** What a good request holds inside its nest. */
  readonly good: readonly Item[]
  readonly values: Record<number, Uint8Array | readonly Item[]>
}

function rows(socket: number): Row[] {
  const value = peerValue(socket)
  const peer = (id: number, ...others: number[]): Item[] => [
    [1, u32(id)],
    ...others.map((number): Item => [number, value[number]!]),
  ]
  const key = (...numbers: number[]): Item[] =>
    numbers.map((number): Item => [number >= 5 ? number | NESTED : number, keyValue[number]!])
  const peerRow = { nest: PEER, values: value }
  const keyRow = { nest: KEYCONF, values: keyValue }
  return [
    { command: 'peer-new', number: 1, good: peer(IDS.free, 6, 2, 5, 8), ...peerRow },
    { command: 'peer-set', number: 2, good: peer(IDS.known, 2, 5), ...peerRow },
    { command: 'peer-get', number: 3, good: peer(IDS.known), ...peerRow },
    { command: 'peer-del', number: 4, good: peer(IDS.known), ...peerRow },
    { command: 'key-new', number: 6, good: key(1, 2, 3, 4, 5, 6), ...keyRow },
    { command: 'key-get', number: 7, good: key(1, 2), ...keyRow },
    { command: 'key-swap', number: 8, good: key(1), ...keyRow },
    { command: 'key-del', number: 10, good: key(1, 2), ...keyRow },
  ]
}

export async function attributes(stage: Stage): Promise<void> {
  const device = await stage.device('mp')
  const socket = stage.udp('owner', 'inside', '0.0.0.0', 1194)
  /** One peer with one key, whatever the last request has done. */
  const restore = async () => {
    const { ifindex } = device
    await stage.does('peer-del', { ifindex, peer: { id: IDS.free } })
    await stage.does('peer-del', { ifindex, peer: { id: IDS.known } })
    const peer = { id: IDS.known, socket: socket.fd, vpnIpv4: '10.8.0.1' }
    const remote = { remoteIpv4: OUTSIDE, remotePort: 1000 }
    await stage.mustPeer(device, { ...peer, ...remote }, keyconf(IDS.known, 'primary', 0))
  }
  await restore()
  for (const row of rows(socket.fd)) {
    for (const [what, payload] of variants(row, device, stage)) {
      const accepted = await stage.asksBytes(`${row.command}, ${what}`, payload, {
        command: row.command,
      })
      if (accepted) await restore()
    }
  }
}

/** A good request and everything that can be wrong with one. */
function* variants(
  { number, nest, good, values }: Row,
  { ifindex }: Device,
  stage: Stage,
): Generator<[what: string, payload: Uint8Array]> {
  const index: Item = [1, u32(ifindex)]
  const whole = (inner: readonly Item[], type = nest | NESTED) =>
    genl(number, [index, [type, inner]])
  const lo = JSON.parse(stage.lab.ip('-j', 'link', 'show', 'lo'))[0].ifindex as number
  const without = (type: number) => good.filter(([one]) => (one & ~NESTED) !== type)
  const replaced = (type: number, item: Item) =>
    good.map((one) => ((one[0] & ~NESTED) === type ? item : one))

  yield ['good', whole(good)]
  yield ['in reverse order', genl(number, [[nest | NESTED, [...good].reverse()], index])]
  yield ['no attributes', genl(number, [])]
  yield ['no ifindex', genl(number, [[nest | NESTED, good]])]
  yield [
    'ifindex 0',
    genl(number, [
      [1, u32(0)],
      [nest | NESTED, good],
    ]),
  ]
  yield [
    'unknown ifindex',
    genl(number, [
      [1, u32(999_999)],
      [nest | NESTED, good],
    ]),
  ]
  yield ['unknown ifindex and nothing else', genl(number, [[1, u32(999_999)]])]
  yield [
    'unknown ifindex, empty nest',
    genl(number, [
      [1, u32(999_999)],
      [nest | NESTED, []],
    ]),
  ]
  yield [
    'ifindex of lo',
    genl(number, [
      [1, u32(lo)],
      [nest | NESTED, good],
    ]),
  ]
  yield [
    'ifindex of lo, empty nest',
    genl(number, [
      [1, u32(lo)],
      [nest | NESTED, []],
    ]),
  ]
  yield [
    'ifindex of 2 bytes',
    genl(number, [
      [1, u16(ifindex)],
      [nest | NESTED, good],
    ]),
  ]
  yield [
    'ifindex of 8 bytes',
    genl(number, [
      [1, filled(8, 0)],
      [nest | NESTED, good],
    ]),
  ]
  yield ['ifindex twice', genl(number, [[1, u32(999_999)], index, [nest | NESTED, good]])]
  yield [
    'nest twice, the last empty',
    genl(number, [index, [nest | NESTED, good], [nest | NESTED, []]]),
  ]
  yield ['no nest', genl(number, [index])]
  yield ['empty nest', whole([])]
  yield ['nest not marked', whole(good, nest)]
  yield ['nest marked as of network order', whole(good, nest | NESTED | 0x4000)]
  yield ['nest of 2 bytes', genl(number, [index, [nest | NESTED, u16(1)]])]
  yield ['nest of 5 bytes', genl(number, [index, [nest | NESTED, filled(5, 5)]])]
  yield [
    'nest with a length beyond its end',
    genl(number, [index, [nest | NESTED, u32(0x10000 * 1 + 40)]]),
  ]
  yield ['nest with a length below 4', genl(number, [index, [nest | NESTED, u32(0x10000 * 1 + 3)]])]
  yield [
    'the other nest too',
    genl(number, [index, [nest | NESTED, good], [(5 - nest) | NESTED, []]]),
  ]
  yield ['the other nest instead', genl(number, [index, [(5 - nest) | NESTED, good]])]
  for (const type of [0, 4, 63, 64, 66, 100]) {
    yield [
      `top-level attribute ${type}`,
      genl(number, [index, [nest | NESTED, good], [type, u32(1)]]),
    ]
  }
  yield ['1 byte behind the last attribute', Buffer.concat([whole(good), filled(1)])]
  yield ['3 bytes behind the last attribute', Buffer.concat([whole(good), filled(3)])]
  yield ['a header cut short behind the last attribute', Buffer.concat([whole(good), u32(0x10008)])]
  yield ['version 0', genl(number, [index, [nest | NESTED, good]], 0)]
  yield ['version 7', genl(number, [index, [nest | NESTED, good]], 7)]

  for (const [type, value] of good) {
    const plain = type & ~NESTED
    yield [`without ${plain}`, whole(without(plain))]
    yield [`${plain} twice`, whole([...good, [type, value]])]
    yield [`${plain} marked the other way`, whole(replaced(plain, [type ^ NESTED, value]))]
    yield [`${plain} empty`, whole(replaced(plain, [type, filled(0)]))]
    if (!(value instanceof Uint8Array)) {
      yield* directions(plain, (item) => whole(replaced(plain, item)))
      continue
    }
    yield [`${plain} of one byte less`, whole(replaced(plain, [type, value.subarray(1)]))]
    yield [
      `${plain} of one byte more`,
      whole(replaced(plain, [type, Buffer.concat([value, filled(1, 0)])])),
    ]
    yield [
      `${plain} of twice the bytes`,
      whole(replaced(plain, [type, Buffer.concat([value, value])])),
    ]
    yield [`${plain} all ones`, whole(replaced(plain, [type, filled(value.length, 0xff)]))]
    yield [`${plain} 0`, whole(replaced(plain, [type, filled(value.length, 0)]))]
    if (value.length === 4) {
      for (const high of [2, 3, 7, 8, 0xffffff, 0x1000000]) {
        yield [`${plain} ${high}`, whole(replaced(plain, [type, u32(high)]))]
      }
    }
  }
  const present = good.map(([type]) => type & ~NESTED)
  for (const [type, value] of Object.entries(values)) {
    const plain = Number(type)
    if (present.includes(plain)) continue
    const item: Item = [value instanceof Uint8Array ? plain : plain | NESTED, value]
    yield [`with ${plain}`, whole([...good, item])]
    yield [`with ${plain} alone`, whole([item])]
    if (value instanceof Uint8Array) {
      yield [`with ${plain} empty`, whole([...good, [plain, filled(0)]])]
    }
  }
  for (const type of [0, 26, 63, 100]) {
    yield [`with unknown ${type}`, whole([...good, [type, u32(1)]])]
  }
}

/** What can be wrong with the keys of one direction. */
function* directions(
  type: number,
  whole: (item: Item) => Uint8Array,
): Generator<[what: string, payload: Uint8Array]> {
  const key = (bytes: number): Item => [1, filled(bytes)]
  const tail = (bytes: number): Item => [2, filled(bytes)]
  const inner = (...items: Item[]) => whole([type | NESTED, items])
  yield [`${type} without a key`, inner(tail(8))]
  yield [`${type} without a nonce tail`, inner(key(32))]
  for (const bytes of [0, 1, 15, 16, 17, 24, 31, 33, 64, 255, 256, 257]) {
    yield [`${type} with a key of ${bytes}`, inner(key(bytes), tail(8))]
  }
  for (const bytes of [0, 4, 7, 9, 16]) {
    yield [`${type} with a nonce tail of ${bytes}`, inner(key(32), tail(bytes))]
  }
  yield [`${type} with an unknown attribute`, inner(key(32), tail(8), [3, u32(1)])]
  yield [`${type} with attribute 0`, inner(key(32), tail(8), [0, u32(1)])]
}

export async function headers(stage: Stage): Promise<void> {
  const { ifindex } = await stage.device('mp')
  const index: Item = [1, u32(ifindex)]
  const get: Item[] = [index, [PEER | NESTED, [[1, u32(1)]]]]
  for (const command of [0, 5, 9, 11, 12, 63, 128, 255]) {
    await stage.asksBytes(`command ${command}`, genl(command, [index]))
  }
  for (const command of [1, 2, 4, 6, 7, 8, 10]) {
    await stage.asksBytes(`command ${command} as dump`, genl(command, [index]), {
      flags: NLM_F.DUMP,
    })
  }
  const reserved = genl(3, get)
  reserved[2] = 1
  await stage.asksBytes('reserved bytes', reserved)
  for (const bytes of [0, 1, 3]) {
    await stage.asksBytes(`a header of ${bytes} bytes`, genl(3, []).subarray(0, bytes))
  }
  const flags = { replace: 0x100, excl: 0x200, create: 0x400, append: 0x800, multi: 2, echo: 8 }
  for (const [name, flag] of Object.entries(flags)) {
    await stage.asksBytes(`flag ${name}`, genl(3, get), { flags: flag })
  }
  await stage.asksBytes('a family that is not there', genl(3, get), { type: 1022 })
  await stage.asksFlags('no flags at all', genl(3, get), 0)
  await stage.asksFlags('a request without ACK that fails', genl(3, get), NLM_F.REQUEST)
  await stage.asksFlags(
    'a request without ACK that succeeds',
    genl(3, [index]),
    NLM_F.REQUEST | NLM_F.DUMP,
  )
  const dumps: [what: string, items: Item[]][] = [
    ['of nothing', [index]],
    ['without ifindex', []],
    ['of an unknown ifindex', [[1, u32(999_999)]]],
    ['of lo', [[1, u32(1)]]],
    ['with a peer', get],
    ['with an empty peer', [index, [PEER | NESTED, []]]],
    ['with a key', [index, [KEYCONF | NESTED, []]]],
    ['with an unknown attribute', [index, [100, u32(1)]]],
    ['with an ifindex of 2 bytes', [[1, u16(1)]]],
  ]
  for (const [what, items] of dumps) {
    await stage.asksBytes(`dump ${what}`, genl(3, items), {
      flags: NLM_F.DUMP,
      command: 'peer-get',
    })
  }
  await stage.setOption('cap-ack', 1)
  await stage.asksBytes('an error to a socket with cap-ack', genl(3, get))
  await stage.asksBytes('a missing attribute, with cap-ack', genl(3, [index]))
  await stage.setOption('ext-ack', 0)
  await stage.asksBytes('an error to a socket with cap-ack alone', genl(3, get))
  await stage.setOption('cap-ack', 0)
  await stage.asksBytes('an error to a socket without options', genl(3, get))
  await stage.asksBytes('a failing dump for a socket without options', genl(3, []), {
    flags: NLM_F.DUMP,
  })
  await stage.setOption('ext-ack', 1)
}
