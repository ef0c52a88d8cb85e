/** The command line on the kernel's own driver: `--driver kernel`, and what `auto` finds where nothing else runs. */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { type GuestResult, runInKernel, whyNoKernel } from './vm.ts'

const skip = (await whyNoKernel()) ?? false

const SCRIPT = `
export PATH=$PWD/bin:$PATH OVPN_SOCKET=/none.sock
ip netns add a; ip netns add b
ip link add wire netns a type veth peer name wire netns b
for n in a b; do ip -n $n link set lo up; ip -n $n link set wire up; done
ip -n a addr add 192.0.2.1/24 dev wire; ip -n b addr add 192.0.2.2/24 dev wire
ovpn link add ovpn0 --mode mp -n a
ovpn link add -n b
ip -n a addr add 10.8.0.1/24 dev ovpn0; ip -n b addr add 10.8.0.2/24 dev ovpn0
for n in a b; do ip -n $n link set ovpn0 up; done
ovpn monitor -n a --json > "$OVPN_OUT/monitor" 2> "$OVPN_OUT/monitor.log" &
monitor=$!
ovpn peer new ovpn0 1 -n a --udp-listen 1194 --remote 192.0.2.2:1194 --vpn-ip 10.8.0.2 2> "$OVPN_OUT/a.log" &
a=$!
ovpn peer new ovpn0 1 -n b --udp-listen 1194 --remote 192.0.2.1:1194 --keepalive 10,60 2> "$OVPN_OUT/b.log" &
b=$!
for file in monitor.log a.log b.log; do until [ -s "$OVPN_OUT/$file" ]; do sleep 0.2; done; done
ovpn key generate /tmp/peer.key
key="--id 5 --cipher aes-256-gcm --key-file /tmp/peer.key"
ovpn key new ovpn0 1 -n a $key --direction 0 --driver kernel
ovpn key new ovpn0 1 -n b $key --direction 1
ip netns exec a ping -c 3 -W 5 10.8.0.2 > /dev/null
ovpn key get ovpn0 1 -n a
ovpn show -n a --json > "$OVPN_OUT/show"
status=0; ovpn peer get ovpn0 9 -n a 2> "$OVPN_OUT/refused" || status=$?; echo "status $status"
kill -INT $a; wait $a
until [ -s "$OVPN_OUT/monitor" ]; do sleep 0.2; done
kill -INT $monitor; wait $monitor
kill -INT $b; wait $b
ovpn link del ovpn0 -n a
`

describe("the command line on the kernel's driver", { skip }, () => {
  let result: GuestResult
  const file = (name: string) => Buffer.from(result.files.get(name) ?? []).toString()

  before(async () => {
    result = await runInKernel(SCRIPT, { timeoutMs: 400_000 })
  })

  it('makes a tunnel that carries packets, and takes it down', () => {
    assert.equal(result.status, 0, `${result.stderr}${file('a.log')}${file('b.log')}`)
    assert.match(result.stdout, /^ovpn0\novpn0\n/)
    assert.match(result.stdout, /^primary: aes-gcm, id 5$/m)
  })

  it('tells of what the kernel knows', () => {
    const { driver, devices } = JSON.parse(file('show'))
    assert.equal(driver, 'kernel')
    assert.equal(devices[0].mode, 'mp')
    const [peer] = devices[0].peers
    assert.equal(peer.id, 1)
    assert.equal(peer['remote-ipv4'], '192.0.2.2')
    assert.equal(peer['vpn-rx-packets'], 3)
  })

  it('prints notifications', () => {
    const { dev, event, peer } = JSON.parse(file('monitor'))
    assert.deepEqual(
      [dev, event, peer],
      ['ovpn0', 'peer-del-ntf', { id: 1, 'del-reason': 'userspace' }],
    )
  })

  it('passes refusals on', () => {
    assert.match(file('refused'), /^ovpn: cannot read peer 9 of ovpn0: .*\(ENOENT\)/)
    assert.match(result.stdout, /^status 1$/m)
  })
})
