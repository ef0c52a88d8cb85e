/**
 * What our server and client tell scripts, and how they take their answers, beside OpenVPN 2.6 with the same scripts. The other end is
 * OpenVPN 2.6 each time. A script is given the same parameters and variables, but for those that a table names, with the reason.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Running } from '../command.ts'
import { openManagement } from '../interop/management.ts'
import { answers } from '../interop/openvpn.ts'
import { STARTED, until, withoutProgram } from '../interop/programs.ts'
import { identity, Peers, stop, vpnAddresses } from './peers.ts'

const SECONDS = 60
const MAKERS = ['ours', '2.6'] as const
type Maker = (typeof MAKERS)[number]

/** Writes down what it is told, as `PREFIX.script_type`, and decides by who asks. */
const HOOK = `#!/bin/sh
prefix=$1; shift
{ echo "parameters=$*"; env; } >> "$prefix.$script_type"
case $script_type in
  user-pass-verify)
    [ "$username $password" = 'late secret' ] && { (sleep 1; echo 1 > "$auth_control_file") & exit 2; }
    [ "$username" = asked ] && { printf '60\\ncrtext\\nCR_TEXT:R,E:Your code?\\n' > "$auth_pending_file"; exit 2; }
    [ "$username $password" = 'alice secret' ] ;;
  client-crresponse)
    # The answer is 42, in base64.
    [ "$(cat "$1")" = NDI= ] && echo 1 > "$auth_control_file" ;;
  client-connect)
    echo 2 > "$client_connect_deferred_file"
    (echo 'push "route 10.77.0.0 255.255.0.0"' > "$1"; sleep 1; echo 1 > "$client_connect_deferred_file") & ;;
esac
`

const SERVER_HOOKS = [
  ...['tls-verify', 'up', 'down', 'route-up', 'client-connect', 'client-disconnect'],
  ...['learn-address', 'client-crresponse', 'tls-crypt-v2-verify'],
]
const CLIENT_HOOKS = ['tls-verify', 'up', 'down', 'route-up', 'route-pre-down', 'ipchange']

/** Variables that OpenVPN gives and ours does not. */
const LEFT_OUT: [scripts: RegExp, names: RegExp, why: string][] = [
  [/./, /^route_net_gateway$/, 'empty'],
  [/./, /^ifconfig_ipv6_remote$/, 'its own address once more'],
  [/^client-/, /^auth_(control|failed_reason|pending)_file$/, 'of a script that has ended'],
  [/^client-(dis)?connect$/, /^ifconfig_pool_(netmask|local_ip6|ip6_netbits)$/, 'the server’s own'],
]

/** Variables that have the same value, too. */
const SAME = ['signal', 'redirect_gateway', 'script_context', 'tun_mtu', 'dev_type', 'COLOUR']

/** Of each script: its parameters at each call, and its variables at the last. */
type Told = Map<string, { parameters: string[]; variables: Map<string, string> }>

describe('scripts', { skip: withoutProgram('2.6') }, () => {
  let peers: Peers

  before(async () => {
    peers = await Peers.open()
    peers.write('hook.sh', HOOK)
    peers.lab.addHost()
    await peers.genkey('tls-crypt-v2-server', 'v2.key')
    await peers.genkey('tls-crypt-v2-client', 'v2-client.key', '--server-key', 'v2.key')
    for (const name of ['alice', 'late', 'asked']) peers.write(name, `${name}\nsecret\n`)
  })
  after(() => peers?.close())

  const hook = (name: string, prefix: string) => `${name} "/bin/sh hook.sh ${prefix}"`

  const told = (prefix: string): Told => {
    const { folder } = peers.lab
    const files = readdirSync(folder).filter((name) => name.startsWith(`${prefix}.`))
    return new Map(
      files.map((file) => {
        const text = readFileSync(join(folder, file), 'utf8')
        const calls = text.split(/^parameters=/m).slice(1)
        const parameters = calls.map((call) => plain(call.slice(0, call.indexOf('\n'))))
        const lines = calls.at(-1)!.matchAll(/^(\w+)=(.*)$/gm)
        const variables = new Map(Array.from(lines, ([, name, value]) => [name!, value!]))
        return [file.slice(prefix.length + 1), { parameters, variables }]
      }),
    )
  }
  const plain = (parameters: string) =>
    parameters
      .replace(/\/\S+/g, 'FILE')
      .replace(/\d+/g, '#')
      .replace(/\b(ovpn|tun|vpn)#/, 'DEV')

  const compare = (all: Map<Maker, Told>, hooks: string[]) => {
    const [ours, theirs] = [all.get('ours')!, all.get('2.6')!]
    for (const name of hooks) {
      const [one, other] = [ours.get(name), theirs.get(name)]
      assert.ok(one !== undefined && other !== undefined, name)
      const known = (variable: string) =>
        LEFT_OUT.some(([scripts, names]) => scripts.test(name) && names.test(variable))
      const names = [...other.variables.keys()]
      const lacks = names.filter((each) => !one.variables.has(each) && !known(each))
      assert.deepEqual([name, lacks], [name, []])
      assert.equal(one.parameters[0], other.parameters[0], name)
      for (const each of SAME.filter((each) => other.variables.has(each))) {
        const of = ({ variables }: typeof one) => variables.get(each)
        assert.equal(of(one), of(other), `${name}: ${each}`)
      }
    }
  }

  /** Of a script that asks for more: the answer goes to `client-crresponse`. */
  const answerQuestion = async (
    begin: (login: string, lines: string[]) => Running,
    number: number,
  ) => {
    const socket = `asked-${number}.sock`
    const asked = begin('asked', [
      ...[`management ${socket} unix`, 'management-hold', 'setenv IV_SSO crtext'],
    ])
    const manager = await openManagement(join(peers.lab.folder, socket))
    assert.match(await manager.ask('hold release'), /^SUCCESS/)
    const question = () => manager.told.includes('>INFOMSG:CR_TEXT:R,E:Your code?')
    await until('the question', question, SECONDS)
    assert.match(await manager.ask('cr-response NDI='), /^SUCCESS/)
    await asked.says(STARTED)
    manager.close()
    await stop(asked)
  }

  it('of a server are told as by OpenVPN, and decide as there', async () => {
    const all = new Map<Maker, Told>()
    await Promise.all(
      MAKERS.map(async (maker, i) => {
        const number = i + 1
        const host = peers.lab.hosts[i]!
        const prefix = `server-${number}`
        const server = await peers.server(
          maker,
          number,
          [
            ...[...identity('server'), 'script-security 3', 'tls-crypt-v2 v2.key'],
            ...SERVER_HOOKS.map((name) => hook(name, prefix)),
            ...[`auth-user-pass-verify "/bin/sh hook.sh ${prefix}" via-env`],
            ...['explicit-exit-notify 1', 'setenv COLOUR blue'],
          ],
          'udp',
        )
        const begin = (login: string, lines: string[] = []): Running =>
          peers.client(
            '2.6',
            number,
            [
              ...[...identity('client'), `auth-user-pass ${login}`, 'tls-crypt-v2 v2-client.key'],
              ...['explicit-exit-notify 1', ...lines],
            ],
            { host },
          )
        for (const login of ['alice', 'late']) {
          const client = begin(login)
          await client.says(STARTED)
          assert.match(host.netns.ip('route'), /10\.77\.0\.0\/16/)
          await answers(host.netns, vpnAddresses(number)[0])
          await stop(client)
        }
        if (maker === 'ours') await answerQuestion(begin, number)
        await stop(server)
        all.set(maker, told(prefix))
      }),
    )
    const answered = all.get('ours')!.get('client-crresponse')
    assert.deepEqual(answered?.parameters, ['FILE'])
    const both = SERVER_HOOKS.filter((name) => name !== 'client-crresponse')
    compare(all, [...both, 'user-pass-verify'])
  })

  it('of a client are told as by OpenVPN', async () => {
    const server = await peers.server(
      '2.6',
      3,
      [
        ...identity('server'),
        'duplicate-cn',
        'push "route 10.66.0.0 255.255.0.0"',
        'push "dhcp-option DNS 10.8.3.1"',
      ],
      'udp',
    )
    const all = new Map<Maker, Told>()
    await Promise.all(
      MAKERS.map(async (maker, i) => {
        const prefix = `client-${i}`
        const host = peers.lab.hosts[i]!
        const hooks = CLIENT_HOOKS.map((name) => hook(name, prefix))
        const lines = [...identity('client'), 'script-security 2', 'setenv COLOUR blue', ...hooks]
        const client = peers.client(maker, 3, lines, { host })
        await client.says(STARTED)
        await stop(client)
        all.set(maker, told(prefix))
      }),
    )
    await stop(server)
    compare(all, CLIENT_HOOKS)
  })
})
