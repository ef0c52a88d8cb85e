/**
 * What the kernel answers, completed by what the driver knows: to the kernel, the driver's interfaces are of the kind `tun`, and
 * its families are not there. Pure: who is asked, and when, is socket.ts's.
 */
import { align, attributes, Writer } from '../netlink/attribute.ts'
import { decodeFamily } from '../netlink/control.ts'
import { type Message, message, messages, NLM_F, NLMSG } from '../netlink/message.ts'
import { decodeLink, RTM } from '../netlink/route.ts'

const IFINFOMSG_BYTES = 16
const IFINFOMSG_INDEX = 4
const IFLA_LINKINFO = 18
const IFLA_INFO_KIND = 1
const OUR_KINDS = ['ovpn', 'ovpn-dco']
/** What the kernel has the driver's interfaces for. */
const KERNEL_KIND = 'tun'

export class KernelAnswers {
  /** IFLA_LINKINFO of the driver's links, by their index, as of the last question about links. */
  readonly #infos = new Map<number, Uint8Array>()
  /** The list of links under way, where only those of one kind are asked for. */
  #list: { seq: number; kind: string } | undefined
  /** The list of families under way, and what it lacks. */
  #families: { seq: number; missing: readonly Uint8Array[] } | undefined

  /** Takes what the driver has answered to RTM_GETLINK for all. */
  learnLinks(datagrams: readonly Uint8Array[]): void {
    this.#infos.clear()
    for (const datagram of datagrams) {
      for (const { type, payload } of messages(datagram)) {
        if (type !== RTM.NEWLINK) continue
        const { index } = decodeLink(payload)
        const info = linkInfo(payload)
        if (index !== undefined && info !== undefined) this.#infos.set(index, info)
      }
    }
  }

  /** A request about links, as the kernel is to be asked. */
  linkRequest(asked: Message): Uint8Array {
    const isDump = (asked.flags & NLM_F.DUMP) !== 0
    const kind = isDump ? kindOf(linkInfo(asked.payload)) : undefined
    if (isDump) this.#list = kind === undefined ? undefined : { seq: asked.seq, kind }
    return kind !== undefined && OUR_KINDS.includes(kind)
      ? withInfo(asked, new Writer().string(IFLA_INFO_KIND, KERNEL_KIND).finish())
      : asked.bytes
  }

  /** Takes what the driver has answered to `asked`, for all families; those with these numbers are its own. */
  learnFamilies(
    asked: Message,
    datagrams: readonly Uint8Array[],
    numbers: ReadonlySet<number>,
  ): void {
    const all = datagrams.flatMap((datagram) => [...messages(datagram)])
    const missing = all
      .filter(({ type, payload }) => type === asked.type && numbers.has(decodeFamily(payload).id))
      .map(({ bytes }) => bytes.slice())
    this.#families = { seq: asked.seq, missing }
  }

  /** A datagram of the kernel's as the program is to have it; empty where nothing is left of it. */
  amend(datagram: Uint8Array): Uint8Array {
    if (this.#infos.size === 0 && this.#families === undefined) return datagram
    return Buffer.concat([...messages(datagram)].flatMap((one) => this.#amended(one)).map(padded))
  }

  #amended(one: Message): Uint8Array[] {
    if (one.type === NLMSG.DONE && one.seq === this.#families?.seq) {
      const { missing } = this.#families
      this.#families = undefined
      return [...missing, one.bytes]
    }
    if (one.type !== RTM.NEWLINK || one.payload.length < IFINFOMSG_BYTES) return [one.bytes]
    const { buffer, byteOffset } = one.payload
    const index = new DataView(buffer, byteOffset).getInt32(IFINFOMSG_INDEX, true)
    const info = this.#infos.get(index)
    if (one.seq === this.#list?.seq) {
      const { kind } = this.#list
      const isWanted = info === undefined ? !OUR_KINDS.includes(kind) : kindOf(info) === kind
      if (!isWanted) return []
    }
    return [info === undefined ? one.bytes : withInfo(one, info)]
  }
}

/** Of a message about a link, or a request for one; undefined where it has none, or is too short for any. */
function linkInfo(payload: Uint8Array): Uint8Array | undefined {
  if (payload.length < IFINFOMSG_BYTES) return undefined
  try {
    const all = [...attributes(payload, IFINFOMSG_BYTES)]
    return all.find(({ type }) => type === IFLA_LINKINFO)?.payload
  } catch {
    return undefined // the kernel says what is wrong with it
  }
}

function kindOf(info: Uint8Array | undefined): string | undefined {
  if (info === undefined) return undefined
  try {
    const kind = [...attributes(info, 0)].find(({ type }) => type === IFLA_INFO_KIND)
    return kind && Buffer.from(kind.payload).toString().replace(/\0.*$/s, '')
  } catch {
    return undefined
  }
}

/** The message with another IFLA_LINKINFO in place of its own. */
function withInfo(one: Message, info: Uint8Array): Uint8Array {
  const writer = new Writer(one.payload.slice(0, IFINFOMSG_BYTES))
  for (const { type, payload } of attributes(one.payload, IFINFOMSG_BYTES)) {
    writer.bytes(type, type === IFLA_LINKINFO ? info : payload)
  }
  return message(one, writer.finish())
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(align(bytes.length))
  whole.set(bytes)
  return whole
}
