/**
 * Packets over TCP: frames however they are cut, frames that cannot be, control packets to the program, ends of every
 * kind. Source: driver-behaviour 6.5, 10.3.
 */
import { connectTcp, listenTcp } from '../../../../src/platform/tcp.ts'
import { OUTSIDE } from '../lab.ts'
import { framed, ipv4, joined, keyconf, Remote, tampered } from '../packets.ts'
import { ETH_P_IP, Stream } from '../sockets.ts'
import type { Device, Stage } from '../stage.ts'
import { sleep } from '../subject.ts'

const inner = ipv4('10.8.0.2', '10.8.0.1')
const control = Uint8Array.from({ length: 20 }, (_, i) => (i === 0 ? 0x20 : i))

interface Line {
  device: Device
  /** The program's end, and the other. */
  here: Stream
  there: Stream
  remote: Remote
}

export async function streams(stage: Stage): Promise<void> {
  // The kernel cuts a stream in a work queue, when a busy machine comes to it.
  stage.quietMs = 120
  const listener = stage.owns(listenTcp(OUTSIDE, 5000, { netns: stage.lab.outside }))
  const connect = () => {
    const here = stage.owns(new Stream(connectTcp(OUTSIDE, 5000, { netns: stage.lab.inside })))
    const there = stage.owns(new Stream(listener.accept(1000)!))
    return { here, there }
  }
  const device = await stage.device('p2p')
  await stage.hearsControls(device)
  /** A stream with a peer of its own, in place of the one before. */
  const open = async (before?: Uint8Array): Promise<Line> => {
    const { here, there } = connect()
    if (before !== undefined) {
      there.send(before)
      await stage.settle()
    }
    await stage.mustPeer(device, { id: 1, socket: here.fd }, keyconf(1, 'primary', 0))
    return { device, here, there, remote: new Remote(1) }
  }
  await frames(stage, await open())
  await waiting(stage, open)
  await wrong(stage, open)
  await ends(stage, open)
}

/** A step: what reached the device, the program, and the other end, after an act on a line. */
function watch(stage: Stage, { device, here, there }: Line) {
  let over = false
  return (what: string, act: () => unknown) =>
    stage.traffic(what, act, {
      count: device,
      extra: async () => {
        const isPeer = await stage.does('peer-get', { ifindex: device.ifindex, peer: { id: 1 } })
        // The kernel tells of an end at every read, which says nothing new.
        const program = over ? [] : await stage.controls(here, isPeer)
        over = program.some((one) => /end|errno/.test(one))
        return { program, other: reads(there) }
      },
    })
}

/** A stream has no borders: all that came, in one. */
function reads(stream: Stream): string {
  let text = ''
  for (let one = stream.read(); one !== undefined; one = stream.read()) {
    if (!/^[0-9a-f]*$/.test(one)) return `${text} ${one}`
    text += one
  }
  return text
}

async function frames(stage: Stage, line: Line): Promise<void> {
  const { device, there, here, remote } = line
  const see = watch(stage, line)
  await see('data', () => there.send(framed(remote.seal(inner))))
  await see('data out', () => device.tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP))
  await see('control', () => there.send(framed(control)))
  await see('control out', () => stage.sendsControl(device, 1, here, control))
  await see('data and control at once', () =>
    there.send(joined(framed(remote.seal(inner)), framed(control), framed(remote.seal(inner)))),
  )
  await see('another peer id', () => there.send(framed(remote.seal(inner, { peerId: 99 }))))
  await see('a replay', () => there.send(framed(remote.seal(inner, { packetId: 1 }))))
  await see('not authentic', () => there.send(framed(tampered(remote.seal(inner), 40))))
  await see('unknown key', () => there.send(framed(remote.seal(inner, { keyId: 4 }))))
  await see('empty plaintext', () => there.send(framed(remote.seal(new Uint8Array(0)))))
  const frame = framed(remote.seal(inner))
  await see('byte by byte', () => {
    for (const byte of frame) there.send(Uint8Array.of(byte))
  })
  for (const at of [1, 2, 3, 5, 20, frame.length - 1]) {
    const next = framed(remote.seal(inner))
    await see(`first ${at} bytes of a frame`, () => there.send(next.subarray(0, at)))
    await see(`the rest after ${at}`, () => there.send(next.subarray(at)))
  }
  const half = framed(control)
  await see('half a control packet', () => there.send(half.subarray(0, 9)))
  await see('its other half', () => there.send(half.subarray(9)))
  const large = Uint8Array.from({ length: 1400 }, (_, i) => (i === 0 ? 0x20 : i & 0xff))
  await see('a large control packet', () => there.send(framed(large)))
  await see('data of 1400 bytes', () =>
    there.send(framed(remote.seal(ipv4('10.8.0.2', '10.8.0.1', 1380)))),
  )
}

type Open = (before?: Uint8Array) => Promise<Line>

/** What was in the stream before the driver had it. */
async function waiting(stage: Stage, open: Open): Promise<void> {
  const remote = new Remote(1)
  const before = joined(framed(control), framed(remote.seal(inner)))
  const line = await open(before)
  await watch(stage, line)('waiting at hand-over', () => undefined)
  const next = framed(remote.seal(inner))
  const cut = await open(next.subarray(0, 10))
  const see = watch(stage, cut)
  await see('half a frame waiting at hand-over', () => undefined)
  await see('its other half after hand-over', () => cut.there.send(next.subarray(10)))
}

/** Frames that cannot be, each followed by a good one. */
async function wrong(stage: Stage, open: Open): Promise<void> {
  const rows: [what: string, bytes: Uint8Array][] = [
    ['length 0', Uint8Array.of(0, 0)],
    ['length 1', Uint8Array.of(0, 1, 0x20)],
    ['length 2', Uint8Array.of(0, 2, 0x20, 0)],
    ['length 3', Uint8Array.of(0, 3, 0x20, 0, 0)],
    ['length 4, control', Uint8Array.of(0, 4, 0x20, 0, 0, 0)],
    ['length 4, data', Uint8Array.of(0, 4, 0x48, 0, 0, 1)],
    ['data of 23 bytes', framed(new Uint8Array(23).fill(0x48, 0, 1))],
    ['DATA_V1', framed(Uint8Array.from({ length: 40 }, () => 0x30))],
    ['opcode 0', framed(new Uint8Array(20))],
    ['opcode 31', framed(new Uint8Array(20).fill(0xf8))],
  ]
  for (const [what, bytes] of rows) {
    const line = await open()
    const see = watch(stage, line)
    await see(what, () => line.there.send(bytes))
    await see(`${what}, then good data`, () => line.there.send(framed(line.remote.seal(inner))))
  }
}

async function ends(stage: Stage, open: Open): Promise<void> {
  const shut = await open()
  const see = watch(stage, shut)
  await see('the other end sends no more', () => shut.there.shutdown())
  await see('sent after that', () => shut.device.tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP))
  const gone = await open()
  const see2 = watch(stage, gone)
  await see2('the other end is gone', () => gone.there.close())
  await see2('sent to nobody', () => gone.device.tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP))
  await see2('sent to nobody again', () =>
    gone.device.tap.send(ipv4('10.8.0.1', '10.8.0.2'), ETH_P_IP),
  )
  const closed = await open()
  await watch(stage, closed)('the program closes', async () => {
    closed.here.close()
    // The user-space driver looks for that now and then.
    await sleep(500)
  })
}
