import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Context, Directive } from './directives/directive.ts'
import { OPENVPN_OPTIONS } from './directives.test-data.ts'
import {
  directive,
  directiveNames,
  groups,
  isDirective,
  similarNames,
  usage,
} from './directives.ts'

const CONTEXTS: readonly Context[] = ['server', 'client', 'ccd', 'pushed']

describe('directives', () => {
  it(`has a row for each of OpenVPN's ${OPENVPN_OPTIONS.length} options`, () => {
    assert.deepEqual(
      OPENVPN_OPTIONS.filter((name) => !isDirective(name)),
      [],
    )
  })

  it('has each row once', () => {
    const names = Object.values(groups).flatMap((group) => Object.keys(group))
    assert.deepEqual([...names].sort(), [...directiveNames].sort())
  })

  for (const name of directiveNames) {
    it(usage(name), () => {
      const row: Directive = directive(name)
      const uses = CONTEXTS.map((context) => row[context]).filter((use) => use !== undefined)
      assert(uses.length > 0, 'it stands somewhere')
      assert.match(row.doc, /^[\p{L}`].*[^.]$/u, 'a line that says what it is for')
      for (const use of uses) {
        if (use.kind === 'no-op') assert.notEqual(use.why, '')
        if (use.kind === 'refused') assert.notEqual(use.instead, '')
      }
      if (row.update) assert(row.pushed ?? name === 'keepalive', 'what is updated is pushed')
      if (row.connection) assert(row.client, 'connection blocks are of clients')
      const kinds = Object.values(row.args)
      const firstOptional = kinds.findIndex(({ optional }) => optional !== undefined)
      assert(
        firstOptional < 0 ||
          kinds.slice(firstOptional).every(({ optional }) => optional !== undefined),
        'nothing that is needed stands behind what may be left out',
      )
      assert(
        kinds.slice(0, -1).every(({ rest }) => rest === undefined),
        'what takes the rest of the line stands last',
      )
    })
  }
})

describe('names like one that is unknown', () => {
  const rows: [name: string, similar: string | undefined, why: string][] = [
    ['dhcp-options', 'dhcp-option', 'a letter too many'],
    ['tls_crypt', 'tls-crypt', 'another dash'],
    ['remtoe', 'remote', 'two letters swapped'],
    ['Proto', 'proto', 'a capital'],
    ['auth-user-pas', 'auth-user-pass', 'a letter too few'],
    ['data-cipher', 'data-ciphers', 'the singular'],
    ['wireguard', undefined, 'something else'],
    ['x', undefined, 'too short to tell'],
  ]
  for (const [name, similar, why] of rows) {
    it(`${name}: ${why}`, () => assert.equal(similarNames(name)[0], similar))
  }
})
