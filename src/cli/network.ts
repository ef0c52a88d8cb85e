/**
 * Network namespaces, links, addresses and their like, as the demonstration needs them: what `ip` would do, through the
 * kernel's rtnetlink.
 */
import { message, NLM_F, NLMSG_HDRLEN } from '../netlink/message.ts'
import { decodeLink, encodeAddress, encodeLink, IFF, parseAddress, RTM } from '../netlink/route.ts'
import { openLibc } from '../platform/libc.ts'
import { askNetlink, openNetlink } from '../platform/netlink.ts'
import { createNetns, openNetnsNamed, removeNetns } from '../platform/netns.ts'

const NETLINK_ROUTE = 0
const AF_INET = 2
const LOOPBACK = 1

/** A named network namespace of ours. */
export class Namespace implements Disposable {
  readonly name: string
  /** A descriptor of it. */
  readonly fd: number

  /** Makes it, its loopback device up. Throws an OsError where that is not allowed, or the name taken. */
  constructor(name: string) {
    this.name = name
    createNetns(name)
    try {
      this.fd = openNetnsNamed(name)
    } catch (error) {
      removeNetns(name)
      throw error
    }
    this.up(LOOPBACK)
  }

  /** Makes a veth pair between this namespace and another; both ends are up. */
  connect(other: Namespace, name: string, otherName: string): void {
    const peer = { name: otherName, netnsFd: other.fd }
    this.#ask(
      RTM.NEWLINK,
      NLM_F.CREATE | NLM_F.EXCL,
      encodeLink({ name, kind: 'veth', peer }),
      `make ${name}`,
    )
    this.up(name)
    other.up(otherName)
  }

  up(link: string | number): void {
    const which = typeof link === 'string' ? { name: link } : { index: link }
    const change = encodeLink({ ...which, flags: IFF.UP, change: IFF.UP })
    this.#ask(RTM.NEWLINK, 0, change, `set ${link} up`)
  }

  /** Index of a link by its name. */
  indexOf(name: string): number {
    const [answer] = this.#ask(RTM.GETLINK, 0, encodeLink({ name }), `find ${name}`)
    return decodeLink(answer!.subarray(NLMSG_HDRLEN)).index!
  }

  /** `prefix`: bits of the network. */
  addAddress(index: number, text: string, prefix: number): void {
    const local = parseAddress(text)
    const address = encodeAddress({ family: AF_INET, prefix, index, local, address: local })
    this.#ask(RTM.NEWADDR, NLM_F.CREATE | NLM_F.EXCL, address, `add the address ${text}`)
  }

  /** Removes the name, and with it all that is in it once nobody uses it. */
  [Symbol.dispose](): void {
    openLibc().close(this.fd)
    removeNetns(this.name)
  }

  #ask(type: number, flags: number, payload: Uint8Array, what: string): Uint8Array[] {
    using socket = openNetlink(NETLINK_ROUTE, { netns: this.fd })
    const header = { type, flags: NLM_F.REQUEST | NLM_F.ACK | flags, seq: 1, pid: 0 }
    return askNetlink(socket, message(header, payload), `cannot ${what} in ${this.name}`)
  }
}
