import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bytes, hex } from '../../test/bytes.ts'
import { Random } from '../../test/random.ts'
import { NetlinkError, Writer } from './attribute.ts'
import { answerControl, decodeFamily, encodeGetFamily, type Family } from './control.ts'
import { genericHeader } from './message.ts'

const ovpn: Family = {
  id: 0x1d,
  name: 'ovpn',
  version: 1,
  headerSize: 0,
  maxAttribute: 0,
  operations: [],
  groups: [{ name: 'peers', id: 9 }],
}
const old: Family = {
  ...ovpn,
  id: 0x1e,
  name: 'ovpn-dco-v2',
  operations: [{ id: 1, flags: 0xb }],
  groups: [],
}
const families = [ovpn, old]
const ask = (fill: (w: Writer) => Writer) => fill(new Writer(genericHeader(3))).finish()
const once = { dump: false }

function only(payload: Uint8Array): Uint8Array {
  const answer = answerControl(payload, once, families)
  assert.ok(Array.isArray(answer) && answer.length === 1, `refused: ${answer}`)
  return answer[0]!
}

describe('GETFAMILY', () => {
  it('is asked as libnl does (netlink-api, appendix A)', () => {
    assert.equal(hex(encodeGetFamily('ovpn')), '03010000090002006f76706e00000000')
  })

  it('is answered with groups whose id stands first (netlink-api, appendix A)', () => {
    const wire = `01020000 09000200 6f76706e 00000000 06000100 1d000000 08000300 01000000
      08000400 00000000 08000500 00000000
      1c000700 18000100 08000200 09000000 0a000100 70656572 73000000`
    assert.equal(hex(only(encodeGetFamily('ovpn'))), hex(bytes(wire)))
  })

  it('lists operations, and no groups where there are none', () => {
    const wire = only(encodeGetFamily('ovpn-dco-v2'))
    assert.equal(hex(wire).slice(-48), '18000600140001000800010001000000080002000b000000')
    assert.deepEqual(decodeFamily(wire), old)
  })

  it('knows nlctrl', () => {
    assert.equal(decodeFamily(only(encodeGetFamily('nlctrl'))).id, 0x10)
  })

  const asked: [payload: Uint8Array, answer: string | number, why: string][] = [
    [ask((w) => w.u16(1, 0x1d)), 'ovpn', 'by id'],
    [ask((w) => w.u16(1, 0x1d).string(2, 'ovpn-dco-v2')), 'ovpn-dco-v2', 'the last one counts'],
    [ask((w) => w.u32(99, 1).string(2, 'ovpn')), 'ovpn', 'unknown attributes are skipped'],
    [bytes(`${hex(encodeGetFamily('ovpn'))}01`), 'ovpn', 'trailing garbage is skipped'],
    [ask((w) => w.u16(1, 0x1f)), -2, 'an unknown id'],
    [encodeGetFamily('wireguard'), -2, 'an unknown name'],
    [encodeGetFamily('o'.repeat(15)), -2, 'the longest name'],
    [encodeGetFamily('o'.repeat(16)), -22, 'a name that is too long'],
    [ask((w) => w.bytes(2, bytes('6f76706e'))), -22, 'a name without NUL'],
    [ask((w) => w.u8(1, 0x1d)), -22, 'an id too short'],
    [genericHeader(3), -22, 'neither id nor name'],
    [genericHeader(10), -95, 'GETPOLICY'],
    [bytes('030100'), -22, 'no header'],
  ]
  for (const [payload, expected, why] of asked) {
    it(`${expected}: ${why}`, () => {
      const answer = answerControl(payload, once, families)
      assert.equal(Array.isArray(answer) ? decodeFamily(answer[0]!).name : answer, expected)
    })
  }

  it('dumps all', () => {
    const answer = answerControl(genericHeader(3), { dump: true }, families) as Uint8Array[]
    assert.deepEqual(
      answer.map((payload) => decodeFamily(payload).name),
      ['nlctrl', 'ovpn', 'ovpn-dco-v2'],
    )
  })

  it('survives random requests', () => {
    const random = new Random(3)
    for (let i = 0; i < 3000; i++) {
      const payload = random.bytes(random.below(41))
      if (i % 2 === 0) payload.set(genericHeader(3).subarray(0, payload.length))
      answerControl(payload, { dump: random.below(10) === 0 }, families)
    }
  })
})

describe('decodeFamily', () => {
  /** Captured from Linux 6.18. */
  const nlctrl = bytes(
    `01020000 0b000200 6e6c6374 726c0000 06000100 10000000 08000300 02000000 08000400 00000000
     08000500 00000000 2c000600 14000100 08000100 03000000 08000200 0e000000 14000200 08000100
     0a000000 08000200 0c000000 1c000700 18000100 08000200 10000000 0b000100 6e6f7469 66790000`,
  )

  it("reads the kernel's own", () => {
    assert.deepEqual(decodeFamily(nlctrl), {
      id: 0x10,
      name: 'nlctrl',
      version: 2,
      headerSize: 0,
      maxAttribute: 0,
      operations: [
        { id: 3, flags: 0xe },
        { id: 10, flags: 0xc },
      ],
      groups: [{ name: 'notify', id: 16 }],
    })
  })

  it('is a NetlinkError on another command, and without id or name', () => {
    const wrong = [bytes('03020000'), bytes('01020000'), encodeGetFamily('ovpn')]
    for (const payload of wrong) assert.throws(() => decodeFamily(payload), NetlinkError)
  })

  it('survives truncation and random changes', () => {
    const random = new Random(4)
    for (let i = 0; i < 3000; i++) {
      const cut = nlctrl.slice(0, i < nlctrl.length ? i : nlctrl.length)
      if (i >= nlctrl.length) cut[random.below(cut.length)] = random.below(256)
      try {
        decodeFamily(cut)
      } catch (error) {
        assert.ok(error instanceof NetlinkError, String(error))
      }
    }
  })
})
