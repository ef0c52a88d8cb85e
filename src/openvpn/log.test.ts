import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { LEVEL, Log, optionsText, packetText } from './log.ts'

function logged(verb: number, mute: number) {
  const lines: string[] = []
  return { lines, log: new Log({ verb, mute }, (text) => lines.push(text)) }
}

describe('Log', () => {
  const levels: [verb: number, expected: string, why: string][] = [
    [0, 'e', 'errors only'],
    [1, 'eu', 'the usual'],
    [3, 'euks', 'steps'],
    [5, 'euksd', 'no packets yet'],
    [6, 'euksdp', 'packets'],
  ]
  for (const [verb, expected, why] of levels) {
    it(`tells at verb ${verb}: ${why}`, () => {
      const { lines, log } = logged(verb, 0)
      for (const [name, level] of Object.entries(LEVEL)) log.write(name[0]!, level)
      assert.equal(lines.join(''), expected)
    })
  }

  it('tells so many of one kind in a row, and then how many more there were', () => {
    const { lines, log } = logged(1, 2)
    for (let port = 1; port <= 5; port++) log.write(`192.0.2.${port}:${4000 + port}: refused`)
    for (const host of ['2001:db8::1', '2001:db8::2', '::1']) log.write(`${host}: refused too`)
    log.write('something else')
    assert.deepEqual(lines, [
      '192.0.2.1:4001: refused',
      '192.0.2.2:4002: refused',
      '(3 more like the last were left out: mute)',
      '2001:db8::1: refused too',
      '2001:db8::2: refused too',
      '(1 more like the last were left out: mute)',
      'something else',
    ])
  })

  it('tells all without `mute`, and what is not told breaks no row', () => {
    const { lines, log } = logged(1, 0)
    for (let i = 0; i < 50; i++) log.write(`message ${i}`)
    assert.equal(lines.length, 50)
    log.mute = 1
    log.write('again 1')
    log.write('a step between', LEVEL.steps)
    log.write('again 2')
    log.write('end')
    assert.deepEqual(lines.slice(50), [
      'again 1',
      '(1 more like the last were left out: mute)',
      'end',
    ])
  })

  it('lets nobody else begin a line, or command a terminal', () => {
    const { lines, log } = logged(1, 0)
    log.write('the server says: \u001b[2Jhello\nMon Nov 23 connected\r\u009b1m')
    assert.deepEqual(lines, ['the server says: ?[2Jhello\n    Mon Nov 23 connected??1m'])
  })

  it('tells everybody who listens, as long as they do', () => {
    const { lines, log } = logged(1, 0)
    const others: string[] = []
    const end = log.also((text, level) => others.push(`${level} ${text}`))
    log.write('one', LEVEL.error)
    end()
    log.write('two')
    assert.deepEqual([lines, others], [['one', 'two'], ['0 one']])
  })
})

describe('texts', () => {
  it('of packets say what can be seen from outside', () => {
    assert.equal(
      packetText('out', Uint8Array.of((7 << 3) | 2, 1, 2)),
      'packet out: HardResetClientV2, key 2, 3 bytes',
    )
    assert.equal(packetText('in', Uint8Array.of(31 << 3)), 'packet in: opcode 31, key 0, 1 bytes')
    assert.equal(packetText('in', new Uint8Array()), 'packet in: opcode 0, key 0, 0 bytes')
  })

  it('of options have no token', () => {
    const text = optionsText([
      'route 10.0.0.0',
      'auth-token SESS_ID_secret\nmore',
      'auth-token-user YQ==',
    ])
    assert.equal(text, 'route 10.0.0.0, auth-token …, auth-token-user YQ==')
  })
})
