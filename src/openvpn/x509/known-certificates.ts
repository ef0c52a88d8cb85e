/**
 * Owns the memory of certificates that were accepted: the same peers come again and again, for each of their keys. The same
 * certificate gets the same memory, by which certificate.ts knows what it has read and whose signature it has checked. Whether
 * a certificate is good today (dates, revocation, rules) is asked each time, by verifier.ts.
 */
import { createHash } from 'node:crypto'

/** About 6 KiB each, with what node:crypto makes of it. */
const MOST_KNOWN = 512

interface Known {
  readonly der: Uint8Array
  /** Of a leaf: those that it came with, itself first. */
  chain?: readonly Uint8Array[]
}

export class KnownCertificates {
  /** By digest; those used last are at the end. */
  readonly #known = new Map<string, Known>()

  get size(): number {
    return this.#known.size
  }

  /** The chain that a peer with this leaf (DER) was accepted with; undefined: none was. */
  chainOf(leaf: Uint8Array): readonly Uint8Array[] | undefined {
    return this.#known.get(digestOf(leaf))?.chain
  }

  /** These certificates (DER) in the memory they were remembered in, where they were. */
  recall(chain: readonly Uint8Array[]): Uint8Array[] {
    return chain.map((der) => this.#known.get(digestOf(der))?.der ?? der)
  }

  /** Keeps them; only those of peers that were accepted, so that nobody else can make it forget. They must not change. */
  remember(chain: readonly Uint8Array[]): void {
    for (const [i, der] of chain.entries()) {
      const digest = digestOf(der)
      const known = this.#known.get(digest) ?? { der }
      if (i === 0) known.chain = chain
      this.#known.delete(digest)
      this.#known.set(digest, known)
    }
    for (const digest of this.#known.keys()) {
      if (this.#known.size <= MOST_KNOWN) return
      this.#known.delete(digest)
    }
  }
}

function digestOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('base64')
}
