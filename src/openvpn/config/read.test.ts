/** That what a configuration says is looked at by somebody: a field that nothing reads is a directive without effect. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { readClientConfig } from './client-config.ts'
import {
  AUTH_TOKEN_KEY,
  CERTIFICATE,
  PRIVATE_KEY,
  textFiles,
  V2_SERVER_KEY,
} from './parse.test-data.ts'
import { readServerConfig } from './server-config.ts'

const SOURCES = fileURLToPath(new URL('../..', import.meta.url))
const files = textFiles({
  'ca.crt': CERTIFICATE,
  'server.crt': CERTIFICATE,
  'server.key': PRIVATE_KEY,
  'v2.key': V2_SERVER_KEY,
  'token.key': AUTH_TOKEN_KEY,
})
const MANAGEMENT = 'management 127.0.0.1 7505\n'

/** All code of these folders and files, but tests. */
function codeOf(...places: string[]): string {
  return places
    .flatMap((place) =>
      place.endsWith('.ts')
        ? [place]
        : readdirSync(join(SOURCES, place)).map((name) => join(place, name)),
    )
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts'))
    .map((path) => readFileSync(join(SOURCES, path), 'utf8'))
    .join('\n')
}

/** Names of fields that stand nowhere in `code`, those of inner objects too. */
function unread(config: object, code: string, inner: readonly string[]): string[] {
  const all = [config, ...inner.map((name) => (config as Record<string, unknown>)[name])]
  return all
    .flatMap((object) => Object.keys(object ?? assert.fail('it is set')))
    .filter((name) => !new RegExp(`\\b${name}\\b`).test(code))
    .sort()
}

describe('fields that nobody reads', () => {
  it('are none of a server', () => {
    const text = `ca ca.crt\ncert server.crt\nkey server.key\nserver 10.8.0.0 255.255.255.0
${MANAGEMENT}auth-gen-token\nauth-gen-token-secret token.key\ntls-crypt-v2 v2.key`
    const config = readServerConfig({ file: 'x.conf', text }, files)
    const code = codeOf(
      ...['openvpn', 'openvpn/server', 'openvpn/proto', 'cli/server.ts', 'cli/process.ts'],
      ...['runtime/configured-server.ts', 'runtime/server.ts'],
    )
    assert.deepEqual(unread(config, code, ['management', 'authGenToken', 'tlsCryptV2']), [
      'forgetDisconnect', // of clients, as their rows in docs/DIRECTIVES.md say
      'passwordsInEnvironment', // looked at when passwords are read from the configuration
      'queryProxy',
      'queryRemote',
      'upDown',
      'upRestart',
    ])
  })

  it('are none of a client', () => {
    const text = `client\nremote vpn.example.org\nca ca.crt\nauth-user-pass\n${MANAGEMENT}`
    const config = readClientConfig({ file: 'x.ovpn', text }, files)
    const code = codeOf(
      ...['openvpn', 'openvpn/client', 'openvpn/proto', 'openvpn/config/pushed.ts'],
      ...['cli/client.ts', 'cli/process.ts', 'runtime/configured-client.ts', 'runtime/client.ts'],
      'runtime/configured-server.ts', // has the management interface of both
    )
    assert.deepEqual(unread(config, code, ['management']), [])
  })
})
