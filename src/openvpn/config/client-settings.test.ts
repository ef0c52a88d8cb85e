import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { applyPushChanges, readClientSettings } from './client-settings.ts'
import { textFiles } from './parse.test-data.ts'

const files = textFiles({ 'ccd/common': 'iroute 10.50.0.0 255.255.0.0\n' })
const read = (text: string) => readClientSettings({ file: 'ccd/alice', text }, files)

describe("one client's settings at the server", () => {
  it('has addresses and networks, its own and included ones', () => {
    const settings = read(
      'ifconfig-push 10.8.0.9 255.255.255.0\nifconfig-ipv6-push fd00::9/64 fd00::1\niroute 10.40.0.1\nconfig common\niroute-ipv6 fd01::/48\ninactive 600 1000\nsession-timeout 3600\ncipher aes-128-gcm\noverride-username al',
    )
    assert.deepEqual(settings.ifconfig, { local: '10.8.0.9', netmask: '255.255.255.0' })
    assert.deepEqual(settings.ifconfigIpv6, { address: 'fd00::9', prefix: 64 })
    assert.deepEqual(settings.iroutes, [
      { network: '10.40.0.1', netmask: '255.255.255.255' },
      { network: '10.50.0.0', netmask: '255.255.0.0' },
    ])
    assert.deepEqual(settings.iroutesIpv6, [{ address: 'fd01::', prefix: 48 }])
    assert.deepEqual(settings.inactive, { timeout: 600_000, bytes: 1000 })
    assert.equal(settings.sessionTimeout, 3_600_000)
    assert.equal(settings.dataCiphersFallback, 'AES-128-GCM')
    assert.equal(settings.overrideUsername, 'al')
    assert.equal(settings.disable, false)
  })

  it('may be nothing, or a refusal', () => {
    assert.equal(read('').ifconfig, undefined)
    assert.equal(read('# gone\ndisable').disable, true)
  })

  const all = ['route 10.1.0.0 255.255.0.0', 'route-ipv6 fd00::/8', 'ping 10']
  const changes: [text: string, options: string[], why: string][] = [
    ['', all, 'nothing'],
    ['push "route 10.2.0.0 255.255.0.0"', [...all, 'route 10.2.0.0 255.255.0.0'], 'one more'],
    ['push-remove route', ['ping 10'], 'what contains the text'],
    ['push-remove "route "', ['route-ipv6 fd00::/8', 'ping 10'], 'and a space in it'],
    ['push-reset', [], 'all of it'],
    ['push-reset\npush "ping 5"', ['ping 5'], 'all, then another'],
    ['push "ping 5"\npush-reset', [], 'the order counts'],
    ['push-reset\npush "comp-lzo no"', [], 'framing is left out'],
  ]
  for (const [text, options, why] of changes) {
    it(`${JSON.stringify(text)}: ${why}`, () =>
      assert.deepEqual(applyPushChanges(all, read(text).pushChanges), options))
  }

  const wrong: [text: string, message: RegExp, why: string][] = [
    ['ifconfig-push 10.8.0.5 10.8.0.6', /the netmask.*net30/, 'a pair of the older topology'],
    ['ifconfig-push 10.8.0.5', /ifconfig-push LOCAL REMOTE/, 'half of it'],
    ['ifconfig-push 10.8.0.5 255.255.255.0 10.9.0.5', /another address/, 'an alias'],
    ['route 10.0.0.0', /these are the settings of one client/, "the server's"],
    ['up /bin/x', /these are the settings/, 'a script'],
    ['comp-lzo', /are told to leave it/, 'framing'],
    ['vlan-pvid 5', /layer 3 only/, 'Ethernet'],
  ]
  for (const [text, message, why] of wrong) {
    it(`are refused: ${why}`, () => assert.throws(() => read(text), message))
  }
})
