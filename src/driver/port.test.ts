import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { message, messages, NLM_F, NLMSG } from '../netlink/message.ts'
import { Port, type PortRequest } from './port.ts'

const request = (seq: number, flags = 0, payload = 0) =>
  message({ type: 0x20, flags: NLM_F.REQUEST | flags, seq, pid: 99 }, new Uint8Array(payload))
const note = (seq: number, length = 0) =>
  message({ type: 0x30, flags: 0, seq, pid: 0 }, new Uint8Array(length))
const MEGABYTE = 1 << 20

/** A port whose transport and handler are the test's. */
function open(options: { room?: boolean; handle?: (request: PortRequest) => Promise<void> } = {}) {
  const written: Uint8Array[] = []
  const handled: PortRequest[] = []
  const transport = { room: options.room ?? true }
  const port = new Port({
    protocol: 'generic',
    portId: 42,
    transport: {
      write: (datagram) => {
        written.push(datagram)
        return transport.room
      },
    },
    handle: async (one) => {
      handled.push({ ...one, payload: one.payload.slice() })
      await options.handle?.(one)
    },
  })
  const numbers = () =>
    written.map((datagram) => {
      const [one] = messages(datagram)
      return one!.type === NLMSG.OVERRUN ? 'lost' : one!.seq
    })
  return { port, written, handled, transport, numbers }
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 0))

/** A promise to settle by hand. */
function gate() {
  let open = () => {}
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, passed }
}

describe('requests of a port', () => {
  it('are handled one after another, with the address of the port', async () => {
    const first = gate()
    const { port, handled } = open({
      handle: ({ seq }) => (seq === 1 ? first.passed : turn()) as Promise<void>,
    })
    port.receive(Buffer.concat([request(1), request(2)]))
    port.receive(request(3))
    await turn()
    assert.deepEqual(
      handled.map(({ seq, pid }) => [seq, pid]),
      [[1, 42]],
    )
    assert.equal(port.waiting, 2)
    first.open()
    await turn()
    await turn()
    await turn()
    assert.deepEqual(
      handled.map(({ seq }) => seq),
      [1, 2, 3],
    )
  })

  it('end at a bad length; those before it count', async () => {
    const { port, handled } = open()
    port.receive(Buffer.concat([request(1), request(2).subarray(0, 15)]))
    await turn()
    assert.deepEqual(
      handled.map(({ seq }) => seq),
      [1],
    )
  })

  it('are wiped when they are answered', async () => {
    const { port, handled } = open()
    const wire = request(1, 0, 32).fill(7, 16)
    port.receive(wire)
    await turn()
    assert.equal(handled[0]!.payload[0], 7)
    assert.ok(wire.every((byte) => byte === 0))
  })

  it('wait while the transport is full', async () => {
    const { port, handled, transport } = open({
      room: false,
      handle: async ({ seq }) => port.answer(note(seq)),
    })
    for (const seq of [1, 2, 3]) port.receive(request(seq))
    await turn()
    assert.deepEqual(
      handled.map(({ seq }) => seq),
      [1],
    )
    transport.room = true
    port.drained()
    await turn()
    assert.deepEqual(
      handled.map(({ seq }) => seq),
      [1, 2, 3],
    )
  })

  const both = NLM_F.DUMP
  const dumps: [
    protocol: 'generic' | 'route',
    type: number,
    flags: number,
    dump: boolean,
    why: string,
  ][] = [
    ['generic', 0x20, both, true, 'both bits'],
    ['generic', 0x20, 0x100, false, 'one of them only'],
    ['route', 18, both, true, 'RTM_GETLINK'],
    ['route', 18, 0x100, true, 'one bit is enough for rtnetlink'],
    [
      'route',
      16,
      NLM_F.EXCL | NLM_F.REPLACE,
      false,
      'the bits mean something else with RTM_NEWLINK',
    ],
  ]
  for (const [protocol, type, flags, dump, why] of dumps) {
    it(`${dump ? 'dump' : 'no dump'}: ${why}`, async () => {
      const seen: boolean[] = []
      const port = new Port({
        protocol,
        portId: 1,
        transport: { write: () => true },
        handle: async (one) => {
          seen.push(one.dump)
        },
      })
      port.receive(
        message({ type, flags: NLM_F.REQUEST | flags, seq: 1, pid: 0 }, new Uint8Array()),
      )
      await turn()
      assert.deepEqual(seen, [dump])
    })
  }

  it('know of a dump that is under way', async () => {
    const first = gate()
    const { port, handled } = open({
      handle: ({ seq }) => (seq === 1 ? first.passed : turn()) as Promise<void>,
    })
    for (const [seq, flags] of [
      [1, both],
      [2, both],
      [3, 0],
    ] as const)
      port.receive(request(seq, flags))
    first.open()
    await turn()
    await turn()
    await turn()
    port.receive(request(4, both))
    await turn()
    assert.deepEqual(
      handled.map(({ busy }) => busy),
      [false, true, false, false],
    )
  })
})

describe('a dump', () => {
  it('is sent as far as there is room', async () => {
    const { port, written, transport } = open({ room: false })
    let pulled = 0
    function* datagrams() {
      for (; pulled < 100; pulled++) yield note(pulled, 1000)
    }
    const sent = port.answerAll(datagrams())
    await turn()
    assert.equal(written.length, 1)
    assert.ok(pulled < 3)
    port.drained()
    await turn()
    assert.equal(written.length, 2)
    transport.room = true
    port.drained()
    await sent
    assert.equal(written.length, 100)
  })

  it('ends when the port is closed', async () => {
    const { port, written } = open({ room: false })
    const sent = port.answerAll([note(1), note(2), note(3)])
    await turn()
    port.close()
    await sent
    assert.equal(written.length, 1)
  })
})

describe('notifications', () => {
  for (const late of [false, true]) {
    it(`${late ? 'late ones come after' : 'others come before'} the answer under way`, async () => {
      const { port, numbers } = open({
        handle: async ({ seq }) => {
          port.notify(note(77), late)
          port.answer(note(seq))
        },
      })
      port.receive(request(1))
      await turn()
      assert.deepEqual(numbers(), late ? [1, 77] : [77, 1])
    })
  }

  it('wait for room, in order', () => {
    const { port, transport, numbers } = open({ room: false })
    for (const seq of [1, 2, 3]) port.notify(note(seq))
    assert.deepEqual(numbers(), [1])
    transport.room = true
    port.drained()
    assert.deepEqual(numbers(), [1, 2, 3])
  })

  it('are lost beyond a megabyte, all until it was read, and the reader is told', () => {
    const { port, transport, numbers } = open({ room: false })
    const half = MEGABYTE / 2 - 16
    for (const [seq, length] of [
      [1, 0],
      [2, half],
      [3, half],
      [4, 0],
      [5, 0],
    ] as const) {
      port.notify(note(seq, length))
    }
    transport.room = true
    port.drained()
    port.notify(note(6))
    assert.deepEqual(numbers(), [1, 2, 3, 'lost', 6])
  })

  it('are lost likewise while they are held for an answer', async () => {
    const { port, numbers } = open({
      handle: async ({ seq }) => {
        port.notify(note(7, MEGABYTE - 16), true)
        port.notify(note(8), true)
        port.answer(note(seq))
      },
    })
    port.receive(request(1))
    await turn()
    assert.deepEqual(numbers(), [1, 7, 'lost'])
  })
})

describe('closing a port', () => {
  it('is told once, to the late too, and nothing is written any more', async () => {
    const { port, written } = open()
    let told = 0
    port.onClose(() => told++)
    port.close()
    port.close()
    port.onClose(() => told++)
    port.notify(note(1))
    port.answer(note(2))
    port.receive(request(3))
    await turn()
    assert.deepEqual([told, written.length], [2, 0])
  })
})
