/** Our server and client on the kernel's own driver, over UDP and over TCP. */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { type GuestResult, runInKernel, whyNoKernel } from './vm.ts'

const skip = (await whyNoKernel()) ?? false

const SCRIPT = `
export PATH=$PWD/bin:$PATH
ip netns add a; ip netns add b
ip link add wire netns a type veth peer name wire netns b
for n in a b; do ip -n $n link set lo up; ip -n $n link set wire up; done
ip -n a addr add 192.0.2.1/24 dev wire; ip -n b addr add 192.0.2.2/24 dev wire
says() { i=0; until grep -q "$2" "$OVPN_OUT/$1"; do sleep 0.5; i=$((i+1)); [ $i -lt 240 ] || { echo "never: $2"; exit 1; }; done; }
ip netns exec a ovpn server --driver kernel --host 192.0.2.1 --dir /tmp/server > "$OVPN_OUT/server" 2>&1 &
server=$!
says server "Initialization Sequence Completed"
grep -v ' udp' /tmp/server/client.ovpn > /tmp/tcp.ovpn
grep -v ' tcp' /tmp/server/client.ovpn > /tmp/udp.ovpn
for transport in udp tcp; do
  : > "$OVPN_OUT/$transport"
  ip netns exec b ovpn client /tmp/$transport.ovpn --driver kernel > "$OVPN_OUT/$transport" 2>&1 &
  client=$!
  says $transport "Initialization Sequence Completed"
  ip -n b -d link show type ovpn | grep -c ' ovpn mode p2p' || true
  ip netns exec b ping -c 5 -i 0.3 -w 30 10.8.0.1 | grep received
  ip netns exec b ping -c 3 -i 0.3 -w 30 -s 1300 10.8.0.1 | grep received
  kill -TERM $client; wait $client; echo "client $?"
  says server "gone after"
done
kill -TERM $server; wait $server; echo "server $?"
ip -n a link show type ovpn; ip -n b link show type ovpn
`

describe("our server and client on the kernel's driver", { skip }, () => {
  let result: GuestResult
  const file = (name: string) => Buffer.from(result.files.get(name) ?? []).toString()

  before(async () => {
    result = await runInKernel(SCRIPT, { timeoutMs: 400_000 })
  })

  it('carry packets over UDP and over TCP, and end', () => {
    const logs = ['server', 'udp', 'tcp'].map(file).join('\n')
    assert.equal(result.status, 0, `${result.stdout}${result.stderr}${logs}`)
    const received = [...result.stdout.matchAll(/(\d) received/g)].map(([, count]) => Number(count))
    assert.deepEqual(received, [5, 3, 5, 3], logs)
    assert.match(result.stdout, /client 0[\s\S]*client 0[\s\S]*server 0/)
  })

  it('agree on what the kernel can: no epochs', () => {
    assert.match(file('server'), /client\/.*: connected, 10\.8\.0\.2/)
    assert.equal(file('server').match(/gone after/g)?.length, 2)
    assert.doesNotMatch(file('udp'), /refus|error/i)
  })
})
