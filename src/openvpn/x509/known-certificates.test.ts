import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { issue } from '../../../test/certificates.ts'
import { certificateIn } from './certificate.ts'
import { KnownCertificates } from './known-certificates.ts'
import { createVerifier } from './verifier.ts'

const MOST_KNOWN = 512
const DAY = 86_400
/** As they come: in new memory each time. */
const arrived = (der: Uint8Array) => Uint8Array.from(der)

describe('KnownCertificates', () => {
  it('gives what is remembered in the same memory, and the rest as it came', () => {
    const known = new KnownCertificates()
    const [one, other] = [Uint8Array.of(1), Uint8Array.of(2)]
    known.remember([one])
    const [again, stranger] = known.recall([arrived(one), other])
    assert.equal(again, one)
    assert.equal(stranger, other)
  })

  it('knows a chain by its leaf', () => {
    const known = new KnownCertificates()
    const [leaf, root] = [Uint8Array.of(1), Uint8Array.of(2)]
    assert.equal(known.chainOf(leaf), undefined)
    known.remember([leaf, root])
    assert.deepEqual(known.chainOf(arrived(leaf)), [leaf, root])
    assert.equal(known.chainOf(root), undefined, 'it was no leaf')
    known.remember([leaf])
    assert.deepEqual(known.chainOf(leaf), [leaf], 'as it was accepted last')
  })

  it('keeps so many, those used last', () => {
    const known = new KnownCertificates()
    const all = Array.from({ length: MOST_KNOWN + 1 }, (_, i) => Uint8Array.of(i >> 8, i))
    known.remember(all.slice(0, MOST_KNOWN))
    known.remember([all[0]!])
    known.remember([all[MOST_KNOWN]!])
    assert.equal(known.size, MOST_KNOWN)
    const kept = known.recall(all.map(arrived)).filter((der, i) => der === all[i])
    assert.equal(kept.length, MOST_KNOWN)
    assert.equal(kept.includes(all[0]!), true, 'it was used again')
    assert.equal(kept.includes(all[1]!), false, 'nobody has used it for longer')
  })

  it('leaves dates and revocation to be asked each time', async () => {
    const root = await issue('CN=Root', { ca: true })
    const leaf = await issue('CN=leaf', { by: root })
    const known = new KnownCertificates()
    let now = Date.now() / 1000
    let revoked = false
    const rules = { peer: 'client', required: true, roots: [root.der] } as const
    const verify = createVerifier({ ...rules, isRevoked: () => revoked }, () => now)
    const problem = () => {
      const chain = known.recall([arrived(leaf.der)])
      const found = verify(chain)
      if (found === undefined) known.remember(chain)
      return found ?? ''
    }
    assert.equal(problem(), '')
    assert.equal(problem(), '')
    assert.equal(known.size, 1)
    revoked = true
    assert.match(problem(), /revoked/)
    revoked = false
    now += 10_000 * DAY
    assert.match(problem(), /expired/)
  })

  it('has a certificate read once', async () => {
    const { der } = await issue('CN=once', {})
    assert.equal(certificateIn(der), certificateIn(der))
    assert.notEqual(certificateIn(der), certificateIn(arrived(der)))
  })
})
