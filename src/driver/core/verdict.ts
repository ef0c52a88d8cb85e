/**
 * What can become of a packet: delivered, or dropped for one of the reasons below; one counter for each.
 * Names follow the drop counters of the `ovpn` netlink spec's development tree where it has one.
 */
const dropReasons = [
  'rx-short', // shorter than its header, or than the smallest sealed packet
  'rx-data-v1', // P_DATA_V1 carries no peer id and is never decrypted
  'rx-not-data', // a control packet on a data socket: its owner has closed the ordinary one
  'rx-unknown-peer',
  'rx-no-key', // the peer has no key with this key id, or none for the epoch
  'rx-auth-failed',
  'rx-replay',
  'rx-malformed', // authentic, but no IP packet, no keepalive, and no message that anybody wants
  'rx-reverse-path', // the inner source belongs to another peer, or to none
  'rx-device', // the device did not take it: down, or its queue full
  'rx-bad-frame', // a TCP stream that cannot be cut into packets any more
  'rx-queue-full', // the worker it is for takes no more
  'rx-control-unclaimed', // a control packet of a TCP peer for which nobody registered
  'tx-malformed', // not an IP packet, or an offload header that does not fit it
  'tx-no-peer',
  'tx-no-key',
  'tx-iv-exhausted', // the packet ids of the key are used up
  'tx-seal-failed',
  'tx-oversized', // does not fit a datagram or a frame
  'tx-queue-full', // the transport takes no more
  'tx-no-route',
  'tx-link', // any other error of the transport
] as const

export type DropReason = (typeof dropReasons)[number]

/** Indices of `dropReasons`, as the hot path uses them; -1 is no drop. */
export const Verdict = {
  Ok: -1,
  RxShort: 0,
  RxDataV1: 1,
  RxNotData: 2,
  RxUnknownPeer: 3,
  RxNoKey: 4,
  RxAuthFailed: 5,
  RxReplay: 6,
  RxMalformed: 7,
  RxReversePath: 8,
  RxDevice: 9,
  RxBadFrame: 10,
  RxQueueFull: 11,
  RxControlUnclaimed: 12,
  TxMalformed: 13,
  TxNoPeer: 14,
  TxNoKey: 15,
  TxIvExhausted: 16,
  TxSealFailed: 17,
  TxOversized: 18,
  TxQueueFull: 19,
  TxNoRoute: 20,
  TxLink: 21,
} as const
export type Verdict = (typeof Verdict)[keyof typeof Verdict]

/** Counts of one device or peer, by reason. */
export class DropCounters {
  readonly #counts = new Float64Array(dropReasons.length)

  add(verdict: Verdict, count = 1): void {
    this.#counts[verdict]! += count
  }

  /** The reasons that occurred. */
  list(): { reason: DropReason; count: number }[] {
    return dropReasons
      .map((reason, i) => ({ reason, count: this.#counts[i]! }))
      .filter(({ count }) => count > 0)
  }
}
