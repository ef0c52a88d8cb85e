import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Issued, type IssueOptions, issue } from '../../../test/certificates.ts'
import { doubtsAbout } from './own-certificate.ts'

const SERVER = '1.3.6.1.5.5.7.3.1'
const CLIENT = '1.3.6.1.5.5.7.3.2'

describe('doubts about a certificate of a server', () => {
  const rows: [options: IssueOptions, doubts: RegExp[], why: string][] = [
    [{ extendedKeyUsage: [SERVER] }, [], 'made for it'],
    [{}, [], 'made for nothing in particular'],
    [{ extendedKeyUsage: ['2.5.29.37.0'] }, [], 'made for anything'],
    [{ extendedKeyUsage: [CLIENT] }, [/x\.crt\): it is not made for a server/], "a client's"],
    [{ from: -9, to: -1 }, [/it is expired since \d{4}-\d\d-\d\d;/], 'expired'],
    [{ from: 1, to: 9 }, [/it is not valid before/], 'not valid yet'],
    [
      { from: -9, to: -1, extendedKeyUsage: [CLIENT] },
      [/expired/, /not made for/],
      'expired, and a client’s',
    ],
  ]
  for (const [options, expected, why] of rows) {
    it(why, async () => {
      const { der } = await issue('CN=server', options)
      const own = { from: 'x.crt', chain: [der], authorities: [] }
      const doubts = doubtsAbout(own, 'server', new Date())
      assert.equal(doubts.length, expected.length, doubts.join())
      expected.forEach((pattern, i) => void assert.match(doubts[i]!, pattern))
    })
  }

  it('none without one, or with one that cannot be read', () => {
    for (const chain of [[], [Uint8Array.of(1)]]) {
      const own = { from: 'x.crt', chain, authorities: [] }
      assert.deepEqual(doubtsAbout(own, 'client', new Date()), [])
    }
  })

  it('who signed it', async () => {
    const root = await issue('CN=root', { ca: true })
    const namesake = await issue('CN=root', { ca: true })
    const between = await issue('CN=between', { ca: true, by: root })
    const leaf = await issue('CN=leaf', { by: root })
    const below = await issue('CN=below', { by: between })
    const alone = await issue('CN=alone')
    type Row = [chain: Issued[], authorities: Issued[], doubt: boolean, why: string]
    const rows: Row[] = [
      [[leaf], [root], false, 'an authority of ours'],
      [[leaf], [namesake], true, 'one of the same name'],
      [[leaf], [namesake, root], false, 'one of two'],
      [[leaf], [], false, 'nobody knows, for there is none'],
      [[below], [root], true, 'one between that is not shown'],
      [[below, between], [root], false, 'one between that is shown'],
      [[below], [root, between], false, 'one between that is an authority'],
      [[alone], [root], false, 'itself: others have its fingerprint'],
    ]
    for (const [chain, authorities, doubt, why] of rows) {
      const ders = (list: Issued[]) => list.map(({ der }) => der)
      const own = { from: 'x.crt', chain: ders(chain), authorities: ders(authorities) }
      const expected = doubt
        ? ['our certificate (x.crt): no authority of ours (ca) has signed it; others may refuse it']
        : []
      assert.deepEqual(doubtsAbout(own, 'server', new Date()), expected, why)
    }
  })
})
