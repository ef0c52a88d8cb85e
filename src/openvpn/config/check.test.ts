import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { checkConfig, type Finding, kindOf, type Verdict } from './check.ts'
import { CERTIFICATE, PRIVATE_KEY, textFiles } from './parse.test-data.ts'

const files = textFiles({
  'ca.crt': CERTIFICATE,
  'c.crt': CERTIFICATE,
  'c.key': PRIVATE_KEY,
  more: 'verb 3',
})
const source = (text: string) => ({ file: 'x.conf', text })
const IDENTITY = 'ca ca.crt\ncert c.crt\nkey c.key\n'

describe('whose configuration it is', () => {
  const rows: [text: string, kind: string, why: string][] = [
    ['server 10.8.0.0 255.255.255.0', 'server', 'its helper'],
    ['port 1\nmode server', 'server', 'its mode'],
    ['tls-server', 'server', 'its part'],
    ['client\nremote x', 'client', "the other's"],
    ['mode p2p', 'client', 'no server'],
    ['', 'client', 'nothing in it'],
  ]
  for (const [text, kind, why] of rows) {
    it(`${JSON.stringify(text)}: ${why}`, () => assert.equal(kindOf(source(text)), kind))
  }
})

describe('what lines do', () => {
  const rows: [line: string, verdict: Verdict, message: RegExp, why: string][] = [
    ['port 443', 'honoured', /^Port of both ends/, 'done'],
    ['persist-key', 'no-op', /^files of keys are read once$/, 'nothing to do'],
    ['cipher AES-256-CBC', 'differs', /negotiated/, 'not as it was meant'],
    ['setenv opt new-thing', 'ignored', /no directive 'new-thing'/, 'unknown, and permitted'],
    ['fragment 1300', 'wrong', /set a smaller/, 'refused'],
    ['prot udp', 'wrong', /did you mean/, 'unknown'],
    ['config more', 'honoured', /Another file/, 'another file'],
    ['push "dhcp-option DNS 1.1.1.1"', 'honoured', /^An option/, 'an option for clients'],
  ]
  for (const [text, verdict, message, why] of rows) {
    it(`${text}: ${why}`, () => {
      const full = `${IDENTITY}server 10.8.0.0 255.255.255.0\n${text}`
      const checked = checkConfig(source(full), 'server', files)
      const found = checked.lines.find(({ place }) => place.line === 5)
      assert.equal(found?.verdict, verdict)
      assert.match(found.message, message)
      assert.equal(found.text, text)
      assert.equal(checked.usable, verdict !== 'wrong')
    })
  }

  it('are told for included files and connection blocks too, and what is missing at the end', () => {
    const text = `client\nca ca.crt\nauth-user-pass\nconfig more\n<connection>\nremote a\nfragment 9\n</connection>\nauth-token secret\ndata-ciphers BF-CBC`
    const { lines, usable } = checkConfig(source(text), 'client', files)
    assert.equal(usable, false)
    const told = lines.map(({ place, text, verdict }) => [
      `${place.file}:${place.line}`,
      text,
      verdict,
    ])
    assert.deepEqual(told, [
      ['x.conf:1', 'client', 'honoured'],
      ['x.conf:2', 'ca ca.crt', 'honoured'],
      ['x.conf:3', 'auth-user-pass', 'honoured'],
      ['x.conf:4', 'config more', 'honoured'],
      ['more:1', 'verb 3', 'honoured'],
      ['x.conf:5', '<connection>', 'honoured'],
      ['x.conf:6', 'remote a', 'honoured'],
      ['x.conf:7', 'fragment 9', 'wrong'],
      ['x.conf:9', 'auth-token …', 'honoured'],
      ['x.conf:10', 'data-ciphers BF-CBC', 'wrong'],
      ['x.conf:0', '', 'differs'],
    ])
  })

  it('are told as a trial finds them, where nothing else is wrong', () => {
    const trial = (): Finding[] => [
      { kind: 'mistake', directive: 'key', message: 'not that of the certificate' },
      { kind: 'doubt', directive: 'cert', message: 'expired' },
      { kind: 'mistake', message: 'something else' },
    ]
    const told = (more: string) => {
      const text = `${IDENTITY}server 10.8.0.0 255.255.255.0\n${more}`
      const { lines, usable } = checkConfig(source(text), 'server', files, trial)
      const found = lines.map(({ place, verdict, message }) => [place.line, verdict, message])
      return { usable, found }
    }
    const { usable, found } = told('verb 3')
    assert.equal(usable, false)
    assert.deepEqual(found[1], [2, 'differs', 'expired'])
    assert.deepEqual(found[2], [3, 'wrong', 'not that of the certificate'])
    assert.deepEqual(found.at(-1), [0, 'wrong', 'something else'])
    const untried = told('fragment 9').found.filter(([, , message]) => message === 'expired')
    assert.deepEqual(untried, [])
  })

  it('are told for the settings of one client', () => {
    const { lines } = checkConfig(source('iroute 10.0.0.0\nroute 10.0.0.0'), 'ccd', files)
    assert.deepEqual(
      lines.map(({ verdict }) => verdict),
      ['honoured', 'wrong'],
    )
  })
})
