/**
 * What a scenario acts on: a driver in the lab, asked through one netlink socket that also hears its notifications, and
 * the sockets around it. Each act is a step of the transcript, with everything that came of it; what a scenario has
 * made goes when it ends.
 */
import { Writer } from '../../../src/netlink/attribute.ts'
import {
  decodeFamily,
  encodeGetFamily,
  type Family,
  GENL_ID_CTRL,
} from '../../../src/netlink/control.ts'
import { type Message, message, messages, NLM_F, NLMSG } from '../../../src/netlink/message.ts'
import { decodeLink, encodeLink, type LinkMessage, RTM } from '../../../src/netlink/route.ts'
import { ovpn } from '../../../src/uapi/dialects/ovpn.ts'
import type {
  ArgsOf,
  CommandName,
  KeyConf,
  Mode,
  PeerNew,
  Request,
} from '../../../src/uapi/types.ts'
import type { Lab } from './lab.ts'
import { framed } from './packets.ts'
import { hex, PacketTap, type Stream, Udp } from './sockets.ts'
import { type Port, type Subject, sleep } from './subject.ts'
import { describe, type Names, type Step } from './transcript.ts'

/** How long a request is given that need not be answered. */
const UNANSWERED_MS = 50
const DUMP_REQUEST = NLM_F.REQUEST | NLM_F.DUMP
/** Command of a relayed control packet in our driver. */
const RELAYED = 68
const ANSWER_MS = 10_000

export interface Device {
  readonly ifindex: number
  readonly name: string
  readonly tap: PacketTap
}

/** Attributes by hand: a number with its flags, and bytes or a nest (whose flag is for the caller to set). */
export type Item = readonly [type: number, value: Uint8Array | readonly Item[]]

/** What a driver was asked beyond one request: the namespaces, the netlink socket, what it is called. */
export class Theatre {
  readonly subject: Subject
  readonly lab: Lab
  readonly steps: Step[] = []
  readonly port: Port
  readonly route: Port
  family: Family | undefined
  #seq = 0
  #lastDevice = 0

  constructor(subject: Subject, lab: Lab) {
    this.subject = subject
    this.lab = lab
    this.port = subject.open('generic', lab.inside)
    this.route = subject.open('route', lab.inside)
  }

  /** Finds the driver and joins its group. */
  async open(): Promise<void> {
    const [reply] = await this.exchange(this.port, GENL_ID_CTRL, 0, encodeGetFamily('ovpn'))
    this.family = decodeFamily(reply!.payload)
    await this.port.setOption('add-membership', this.family.groups[0]!.id)
  }

  nextDevice(): string {
    return `t${++this.#lastDevice}`
  }

  /** Sends a request and gives all that comes until it is answered; `waits`: it asks for that. A dump is answered anyway. */
  async exchange(
    port: Port,
    type: number,
    flags: number,
    payload: Uint8Array,
    waits = true,
  ): Promise<Message[]> {
    const seq = ++this.#seq
    const all = NLM_F.REQUEST | NLM_F.ACK
    port.send(message({ type, flags: waits ? flags | all : flags, seq, pid: 0 }, payload))
    const answered = waits || (flags & DUMP_REQUEST) === DUMP_REQUEST
    const found: Message[] = []
    for (;;) {
      const come = await received(port, answered ? ANSWER_MS : UNANSWERED_MS)
      if (come === undefined) {
        if (answered) throw new Error('the driver does not answer')
        return found
      }
      found.push(...come)
      const last = (one: Message) =>
        one.seq === seq && (one.type === NLMSG.ERROR || one.type === NLMSG.DONE)
      if (come.some(last)) return found
    }
  }

  close(): void {
    this.port.close()
    this.route.close()
  }
}

async function received(port: Port, ms: number): Promise<Message[] | undefined> {
  const datagram = await port.next(ms)
  return datagram && [...messages(datagram)]
}

export class Stage implements AsyncDisposable {
  readonly lab: Lab
  readonly kind: 'kernel' | 'user'
  readonly #theatre: Theatre
  readonly #scenario: string
  readonly #links = new Map<number, string>()
  readonly #udp = new Map<string, Udp>()
  readonly #closing: (() => void)[] = []
  readonly #devices = new Set<Device>()
  /** Milliseconds in which nothing must happen for an act to be over. */
  quietMs = 25

  constructor(theatre: Theatre, scenario: string) {
    this.#theatre = theatre
    this.lab = theatre.lab
    this.kind = theatre.subject.kind
    this.#scenario = scenario
  }

  get #names(): Names {
    return { family: this.#theatre.family!.id, links: this.#links }
  }

  /** Writes a step down. */
  note(what: string, seen: unknown): void {
    this.#theatre.steps.push({ name: `${this.#scenario}: ${what}`, seen })
  }

  // Devices ----------------------------------------------------------------------------------------------------------

  /** A device that is up, without a step of its own. */
  async device(mode: Mode, { up = true } = {}): Promise<Device> {
    const name = this.#theatre.nextDevice()
    await this.link({ name, kind: 'ovpn', mode: mode === 'mp' ? 1 : 0 }, NLM_F.CREATE | NLM_F.EXCL)
    const device = this.deviceNamed(name)
    if (up) this.lab.ip('link', 'set', name, 'up')
    return device
  }

  /** A device that exists. It is removed with the scenario. */
  deviceNamed(name: string): Device {
    const [{ ifindex }] = JSON.parse(this.lab.ip('-j', 'link', 'show', name)) as [
      { ifindex: number },
    ]
    const device = { ifindex, name, tap: new PacketTap(this.lab.inside, ifindex) }
    this.#devices.add(device)
    this.#links.set(ifindex, name.replace(/^t\d+$/, 'device'))
    this.#closing.push(() => device.tap.close())
    return device
  }

  /** RTM_NEWLINK; gives the messages. Throws an Error where it is refused. */
  async link(link: LinkMessage, flags: number): Promise<void> {
    const seen = await this.#exchange(this.#theatre.route, RTM.NEWLINK, flags, encodeLink(link))
    const [answer] = seen.map((one) => describe(one, this.#names, undefined) as { errno?: string })
    if (answer?.errno !== undefined) throw new Error(`no device: ${JSON.stringify(answer)}`)
  }

  /** A request to rtnetlink as a step. */
  async asksRoute(what: string, type: number, flags: number, payload: Uint8Array): Promise<void> {
    const { route, port } = this.#theatre
    const seen = await this.#exchange(route, type, flags, payload)
    const answers = seen.map((one) => describe(one, this.#names, undefined))
    const told = (await this.#heard(port)).map((one) => describe(one, this.#names, undefined))
    // Peers go in the order in which the driver keeps them.
    this.note(what, { answers, ...(told.length > 0 && { told: sorted(told) }) })
  }

  /** What the driver says of a link, and what the system does, as a step. */
  async showsLink(what: string, { name, ifindex }: Device): Promise<void> {
    const { route } = this.#theatre
    const seen = await this.#exchange(route, RTM.GETLINK, 0, encodeLink({ index: ifindex }))
    const reply = seen.find((one) => one.type === RTM.NEWLINK)
    const { kind, mode, mtu, counters } = reply === undefined ? {} : decodeLink(reply.payload)
    const [system] = JSON.parse(this.lab.ip('-d', '-j', 'link', 'show', name)) as [
      Record<string, unknown>,
    ]
    const keys = ['flags', 'mtu', 'operstate', 'link_type', 'txqlen', 'min_mtu', 'max_mtu', 'qdisc']
    const facts = Object.fromEntries(keys.map((key) => [key, system[key]]))
    this.note(what, { driver: { kind, mode, mtu, counters }, system: facts })
  }

  async removeDevice(what: string, device: Device): Promise<void> {
    this.#devices.delete(device)
    await this.asksRoute(what, RTM.DELLINK, 0, encodeLink({ index: device.ifindex }))
  }

  // Requests ---------------------------------------------------------------------------------------------------------

  /** A request as the dialect encodes it, as a step. Says whether it was accepted. */
  asks<C extends CommandName>(what: string, command: C, args: ArgsOf<C>): Promise<boolean> {
    const request = { command, args } as unknown as Request
    return this.#asks(what, command, 0, ovpn.encodeRequest(request))
  }

  /** All peers of a device, sorted by id, as a step. */
  asksAll(what: string, ifindex: number): Promise<boolean> {
    const request: Request = { command: 'peer-get', args: { ifindex }, dump: true }
    return this.#asks(what, 'peer-get', NLM_F.DUMP, ovpn.encodeRequest(request))
  }

  /** A request made by hand, as a step. */
  asksBytes(
    what: string,
    payload: Uint8Array,
    { flags = 0, type = this.#names.family, command = undefined as CommandName | undefined } = {},
  ): Promise<boolean> {
    return this.#asks(what, command, flags, payload, type)
  }

  /** A request whose flags are as given, REQUEST and ACK included; nothing need come of it. */
  async asksFlags(what: string, payload: Uint8Array, flags: number): Promise<void> {
    const { port } = this.#theatre
    const seen = await this.#exchange(port, this.#names.family, flags, payload, false)
    this.note(what, { messages: seen.map((one) => describe(one, this.#names, undefined)) })
  }

  async #asks(
    what: string,
    command: CommandName | undefined,
    flags: number,
    payload: Uint8Array,
    type = this.#names.family,
  ): Promise<boolean> {
    const { port } = this.#theatre
    const seen = await this.#exchange(port, type, flags, payload)
    seen.push(...(await this.#heard(port, 3)))
    const listed = seen.map((one) => describe(one, this.#names, command))
    this.note(what, { messages: flags === NLM_F.DUMP ? sorted(listed) : listed })
    return !listed.some((one) => 'errno' in one)
  }

  /** Asks without a step; says whether it was accepted. */
  async does<C extends CommandName>(command: C, args: ArgsOf<C>): Promise<boolean> {
    return (await this.#refusal(command, args)) === undefined
  }

  /** As `does`, where the scenario has no point without it. */
  async must<C extends CommandName>(command: C, args: ArgsOf<C>): Promise<void> {
    const refusal = await this.#refusal(command, args)
    if (refusal !== undefined) throw new Error(`${command}: ${JSON.stringify([args, refusal])}`)
  }

  async #refusal<C extends CommandName>(command: C, args: ArgsOf<C>): Promise<object | undefined> {
    const { port } = this.#theatre
    const payload = ovpn.encodeRequest({ command, args } as unknown as Request)
    const seen = await this.#exchange(port, this.#names.family, 0, payload)
    await this.#heard(port, 3)
    const listed = seen.map((one) => describe(one, this.#names, undefined))
    return listed.find((one) => 'errno' in one)
  }

  /** As the theatre's; packets that come meanwhile are kept. */
  async #exchange(...request: Parameters<Theatre['exchange']>): Promise<Message[]> {
    const seen = await this.#theatre.exchange(...request)
    return seen.filter((one) => !this.#isPacket(one))
  }

  async mustPeer(device: Device, peer: PeerNew, ...keys: readonly KeyConf[]): Promise<void> {
    const { ifindex } = device
    await this.must('peer-new', { ifindex, peer })
    for (const keyconf of keys) await this.must('key-new', { ifindex, keyconf })
  }

  setOption: Port['setOption'] = (option, value) => this.#theatre.port.setOption(option, value)

  async #heard(port: Port, ms = 0): Promise<Message[]> {
    const found: Message[] = []
    for (;;) {
      const come = await received(port, ms)
      if (come === undefined) return found.filter((one) => !this.#isPacket(one))
      found.push(...come)
    }
  }

  /** Keeps a relayed control packet for `controls`. */
  #isPacket(one: Message): boolean {
    if (one.seq !== 0 || one.payload[0] !== RELAYED) return false
    const event = ovpn.decodeEvent(one.payload)
    if (event?.event !== 'packet') return false
    this.#packets.push(event.packet.eof ? 'end' : hex(event.packet.packet))
    return true
  }

  // Traffic ----------------------------------------------------------------------------------------------------------

  /** A UDP socket whose datagrams every step of `traffic` tells under this name. */
  udp(name: string, netns: 'inside' | 'outside' | 'aside', address: string, port: number): Udp {
    const socket = new Udp(this.lab[netns], address, port)
    this.#udp.set(name, socket)
    this.#closing.push(() => socket.close())
    return socket
  }

  /** Closes what a scenario has opened, when it ends. */
  owns<T extends { close(): void }>(one: T): T {
    this.#closing.push(() => one.close())
    return one
  }

  /**
   * Acts, waits until nothing happens any more, and writes down what came out of sockets and devices, what was told,
   * and with `count` the counters of all peers of a device.
   */
  async traffic(
    what: string,
    act: () => unknown,
    { count, extra, shape, once = false }: TrafficOptions = {},
  ): Promise<void> {
    await act()
    const { port } = this.#theatre
    const seen: Record<string, unknown[]> = {}
    const add = (name: string, found: readonly unknown[]) => {
      if (found.length === 0) return false
      seen[name] = [...(seen[name] ?? []), ...found]
      return true
    }
    let quiet = false
    while (!quiet) {
      const heard = await this.#reached()
      heard.push(...(await this.#heard(port, this.quietMs)))
      const lines = (socket: Udp) => (shape ? socket.drain().map(shape) : socket.drain())
      const come = [
        add(
          'told',
          heard.map((one) => describe(one, this.#names, undefined)),
        ),
        ...[...this.#udp].map(([name, socket]) => add(name, lines(socket))),
        ...[...this.#devices].map(({ tap }) => add('device', tap.drain())),
      ]
      quiet = !come.includes(true)
    }
    const counters = count && (await this.#counters(count.ifindex))
    this.note(what, {
      ...(once ? firsts(seen) : seen),
      ...(extra && { extra: await extra() }),
      ...(counters && { counters }),
    })
  }

  /**
   * Waits until the user-space driver's workers have read what was sent to them so far: they answer a request behind it.
   * Gives what was told meanwhile. The kernel has done its work when a send returns.
   */
  async #reached(): Promise<Message[]> {
    const told: Message[] = []
    if (this.kind === 'kernel') return told
    // The first answer may be given before what was found beside its request is worked off.
    for (const { ifindex } of [...this.#devices, ...this.#devices]) {
      const seen = await this.#dump(ifindex)
      told.push(...seen.filter((one) => one.seq === 0))
    }
    return told
  }

  /** What has come from sockets and devices so far is of no interest. */
  async settle(): Promise<void> {
    await this.#reached()
    await this.#heard(this.#theatre.port, this.quietMs)
    for (const socket of this.#udp.values()) socket.drain()
    for (const { tap } of this.#devices) tap.drain()
  }

  #dump(ifindex: number): Promise<Message[]> {
    const request: Request = { command: 'peer-get', args: { ifindex }, dump: true }
    const { port } = this.#theatre
    const payload = ovpn.encodeRequest(request)
    return this.#exchange(port, this.#names.family, NLM_F.DUMP, payload)
  }

  async #counters(ifindex: number): Promise<string[]> {
    const peers = (await this.#dump(ifindex))
      .filter((one) => one.type === this.#names.family && one.seq !== 0)
      .map((one) => ovpn.decodeReply('peer-get', one.payload))
      .sort((a, b) => a.id - b.id)
    return peers.map(
      (peer) =>
        `${peer.id}: vpn rx ${peer.vpnRxPackets}/${peer.vpnRxBytes} tx ${peer.vpnTxPackets}/${peer.vpnTxBytes}, ` +
        `link rx ${peer.linkRxPackets}/${peer.linkRxBytes} tx ${peer.linkTxPackets}/${peer.linkTxBytes}, ` +
        `to ${peer.remoteIpv4 ?? peer.remoteIpv6 ?? '-'} ${peer.remotePort ?? '-'} from ${peer.localIpv4 ?? peer.localIpv6 ?? '-'}`,
    )
  }

  // Over TCP, control packets reach the program through its socket from the kernel, as messages from us --------------

  async hearsControls({ ifindex }: Device): Promise<void> {
    if (this.kind === 'user') await this.must('packet-register', { ifindex })
  }

  /** Sends a control packet of the program's, over TCP. */
  async sendsControl(device: Device, peerId: number, stream: Stream, packet: Uint8Array) {
    if (this.kind === 'kernel') stream.send(framed(packet))
    else await this.must('packet', { ifindex: device.ifindex, packet: { packet, peerId } })
  }

  /**
   * What the program got over TCP since the last call, in hex: control packets while there is a peer on the stream,
   * bytes as they stand afterwards.
   */
  async controls(stream: Stream, isPeer: boolean): Promise<string[]> {
    const found = this.#packets.splice(0)
    // The user-space driver reads the stream itself as long as it has it.
    if (isPeer && this.kind === 'user') return found
    for (let one = stream.read(); one !== undefined; one = stream.read()) {
      if (!isPeer) found.push(`raw ${one}`)
      else found.push(/^[0-9a-f]+$/.test(one) ? one.slice(4) : one)
      if (!/^[0-9a-f]+$/.test(one)) break
    }
    return found
  }

  readonly #packets: string[] = []

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { ifindex } of this.#devices) {
      const { route } = this.#theatre
      await this.#exchange(route, RTM.DELLINK, 0, encodeLink({ index: ifindex }))
    }
    for (const close of this.#closing) close()
    await sleep(0)
    await this.#heard(this.#theatre.port, this.quietMs)
  }
}

export interface TrafficOptions {
  /** Whose peers' counters to write down. */
  readonly count?: Device
  readonly extra?: () => unknown
  /** What is kept of a line of a socket. */
  readonly shape?: (line: string) => string
  /** Keeps the first thing only that each socket got, and what was told sorted. */
  readonly once?: boolean
}

function firsts(seen: Record<string, unknown[]>): Record<string, unknown[]> {
  const few = Object.entries(seen).map(([name, list]): [string, unknown[]] => [
    name,
    name === 'told' ? sorted(list as object[]) : list.slice(0, 1),
  ])
  return Object.fromEntries(few)
}

/** Order of a dump is the driver's own: by the text of its objects, what ends it last. */
function sorted(listed: readonly object[]): object[] {
  const isReply = (one: object) =>
    'kind' in one && (one.kind === 'reply' || one.kind === 'notification')
  const replies = listed.filter(isReply)
  const text = (one: object) => JSON.stringify(one)
  return [
    ...replies.sort((a, b) => (text(a) < text(b) ? -1 : 1)),
    ...listed.filter((one) => !isReply(one)),
  ]
}

/** A generic netlink payload by hand. */
export function genl(command: number, items: readonly Item[], version = 1): Uint8Array {
  return encode(items, Uint8Array.of(command, version, 0, 0))
}

export const NESTED = 0x8000

function encode(items: readonly Item[], header?: Uint8Array): Uint8Array {
  const writer = new Writer(header)
  for (const [type, value] of items) {
    writer.bytes(type, value instanceof Uint8Array ? value : encode(value))
  }
  return writer.finish().slice()
}
