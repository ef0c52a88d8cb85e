import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type IssueOptions, issue } from '../../../test/certificates.ts'
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
      const { pem } = await issue('CN=server', options)
      const cert = { from: 'x.crt', path: 'x.crt', content: new TextEncoder().encode(pem) }
      const doubts = doubtsAbout(cert, 'server', new Date())
      assert.equal(doubts.length, expected.length, doubts.join())
      expected.forEach((pattern, i) => void assert.match(doubts[i]!, pattern))
    })
  }

  it('none without one', () => assert.deepEqual(doubtsAbout(undefined, 'client', new Date()), []))
})
