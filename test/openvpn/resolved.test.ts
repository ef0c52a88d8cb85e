/** DNS through systemd-resolved: a real one, with a bus of its own, in namespaces that go with it. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '../command.ts'
import { withoutNamespaces } from '../namespace.ts'

const folder = mkdtempSync(join(tmpdir(), 'ovpn-resolved-'))
const files = findResolved()

/** The package is unpacked, not installed: that would take over this machine's own resolv.conf. */
function findResolved(): string | false {
  if (existsSync('/lib/systemd/systemd-resolved')) return '/'
  const tree = join(folder, 'tree')
  const options = { cwd: folder, stdio: 'ignore', timeout: 30_000 } as const
  if (spawnSync('apt-get', ['download', 'systemd-resolved'], options).status !== 0) return false
  const unpack = `dpkg-deb -x systemd-resolved_*.deb "${tree}"`
  return spawnSync('sh', ['-c', unpack], options).status === 0 ? tree : false
}

function whyNot(): string | false {
  if (withoutNamespaces !== false) return withoutNamespaces
  if (files === false) return 'there is no systemd-resolved here, and apt has none'
  const linked = spawnSync(join(files, 'usr/bin/resolvectl'), ['--version'])
  if (linked.status !== 0) return 'systemd-resolved of this machine does not run here'
  const bus = spawnSync('dbus-daemon', ['--version'])
  return bus.status === 0 ? false : 'there is no dbus-daemon'
}

/** Mounts and a network that nobody else sees, a bus, and resolved; then the program `$2` of Bun (`$1`). */
const SCENE = `
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/dbus /run/systemd/resolve
for table in passwd group; do cp /etc/$table /run/$table; done
echo 'systemd-resolve:x:990:990::/:/bin/false' >> /run/passwd
echo 'systemd-resolve:x:990:' >> /run/group
for table in passwd group; do mount --bind /run/$table /etc/$table; done
chown 990:990 /run/systemd/resolve
mount -t tmpfs none /usr/local/sbin
cp "$FILES/usr/bin/resolvectl" /usr/local/sbin/
ip link set lo up
ip tuntap add vpn0 mode tun
ip address add 10.8.0.2/24 dev vpn0
ip link set vpn0 up
dbus-daemon --config-file="$FOLDER/bus.conf" --nofork --nopidfile 2>/dev/null &
bus=$!
trap 'kill $bus $resolved 2>/dev/null' EXIT
seen() { n=0; until [ -e "$1" ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; }
seen /run/dbus/system_bus_socket
"$FILES/lib/systemd/systemd-resolved" 2>/run/resolved.log &
resolved=$!
seen /run/systemd/resolve/stub-resolv.conf
mount --bind /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
"$1" "$2"
`

const BUS = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
`

const DNS = fileURLToPath(new URL('../../src/runtime/dns.ts', import.meta.url))
/** Prints what resolved has for the interface, before, with each plan, and after. */
const PROGRAM = `
import { execFileSync } from 'node:child_process'
import { applyDns } from ${JSON.stringify(DNS)}
const ask = (...args) => execFileSync('/usr/local/sbin/resolvectl', [...args, 'vpn0'], { encoding: 'utf8' })
  .replace(/^Link \\d+ \\(vpn0\\):/, '').trim()
const look = () => [ask('dns'), ask('domain'), ask('dnsovertls'), ask('dnssec')]
const plan = { servers: ['192.0.2.53', '2001:db8::53'], searchDomains: ['corp.example'], routeDomains: [] }
const found = [look()]
let undo = await applyDns('vpn0', plan, console.error)
found.push(look())
await undo()
found.push(look())
undo = await applyDns('vpn0', {
  servers: ['192.0.2.54:5353', '[2001:db8::54]:8853'], searchDomains: [], routeDomains: ['corp.example'],
  tls: { name: 'dns.example' }, dnssec: 'optional',
}, console.error)
found.push(look())
await undo()
const wrong = await applyDns('vpn0', { ...plan, searchDomains: ['a..b'] }, console.error).catch((error) => error.message)
found.push(look())
const gone = await applyDns('nosuch0', plan, console.error).catch((error) => error.message)
console.log(JSON.stringify({ found, wrong, gone }))
`

describe('DNS through systemd-resolved', { skip: whyNot() }, () => {
  let told: { found: string[][]; wrong: string; gone: string }
  before(async () => {
    const write = (name: string, text: string) => {
      const path = join(folder, name)
      writeFileSync(path, text)
      return path
    }
    chmodSync(folder, 0o755)
    write('bus.conf', BUS)
    const scene = write('scene.sh', SCENE)
    const program = write('program.ts', PROGRAM)
    const args = ['--mount', '--net', 'bash', scene, process.execPath, program]
    const env = { FILES: String(files), FOLDER: folder }
    const { status, stdout, stderr } = await run('unshare', args, { env })
    assert.equal(status, 0, stderr)
    told = JSON.parse(stdout.trim().split('\n').at(-1)!)
  })

  const nothing = ['', '', 'no', 'no']

  it('is asked for all names where the servers have no domains of their own', () => {
    const [before, during, after] = told.found
    assert.deepEqual(before, nothing)
    assert.deepEqual(during, ['192.0.2.53 2001:db8::53', 'corp.example ~.', 'no', 'no'])
    assert.deepEqual(after, nothing, 'taken back')
  })

  it('is told ports, the name in certificates, and domains that lead there', () => {
    const servers = '192.0.2.54:5353#dns.example [2001:db8::54]:8853#dns.example'
    assert.deepEqual(told.found[3], [servers, '~corp.example', 'yes', 'allow-downgrade'])
  })

  it('is left as it was where it refuses a part', () => {
    assert.match(told.wrong, /^resolvectl domain vpn0 a\.\.b/)
    assert.deepEqual(told.found[4], nothing)
    assert.match(told.gone, /^resolvectl dns nosuch0 /)
  })
})

after(() => rmSync(folder, { recursive: true, force: true }))
