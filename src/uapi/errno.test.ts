import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { describe, it } from 'node:test'
import { ApiError, errnoName, errnoNumber } from './errno.ts'

describe('errno', () => {
  it('numbers are those of this system', () => {
    let known = 0
    for (const [name, number] of Object.entries(constants.errno)) {
      const ours = errnoName(number)
      if (ours === undefined) continue
      known++
      // EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP share a number.
      if (ours === name) assert.equal(errnoNumber(ours), number)
      else assert.ok(['EWOULDBLOCK', 'ENOTSUP'].includes(name), `${name} is ${ours}`)
    }
    assert.ok(known > 30, `${known} found`)
  })

  it('an ApiError names the attribute behind the reason', () => {
    const error = new ApiError('EINVAL', 'remote port without a remote address', 'peer.remote-port')
    assert.equal(error.message, 'remote port without a remote address: peer.remote-port')
    assert.equal(new ApiError('ENOENT', 'no such peer').message, 'no such peer')
  })

  const rows: [number: number, text: string, errno: string, message: string, why: string][] = [
    [2, 'no such peer', 'ENOENT', 'no such peer', 'what the driver says'],
    [2, '', 'ENOENT', 'ENOENT', 'a driver that says nothing'],
    [4095, '', 'EPROTO', 'errno 4095', 'a number nobody knows'],
  ]
  for (const [number, text, errno, message, why] of rows) {
    it(`from ${number}: ${why}`, () => {
      const error = ApiError.from(number, text)
      assert.equal(error.errno, errno)
      assert.equal(error.message, message)
    })
  }
})
