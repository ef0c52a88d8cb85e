/**
 * A program: what a router with address translation is to UDP. Passes datagrams on between one sender and a server, and on
 * SIGUSR1 does so from another port, as after having forgotten the sender.
 *
 *     bun nat.ts PORT SERVER SERVER-PORT        listens at 127.0.0.1:PORT
 */
import { createSocket, type Socket } from 'node:dgram'

const [port, server, serverPort] = process.argv.slice(2) as [string, string, string]
const inner = createSocket('udp4')
let sender: { address: string; port: number } | undefined
let outer = openOuter()

function openOuter(): Socket {
  const socket = createSocket('udp4')
  socket.on('message', (datagram) => {
    if (sender !== undefined) inner.send(datagram, sender.port, sender.address)
  })
  return socket
}

inner.on('message', (datagram, from) => {
  sender = from
  outer.send(datagram, Number(serverPort), server)
})
process.on('SIGUSR1', () => {
  outer.close()
  outer = openOuter()
  console.log('moved')
})
inner.bind(Number(port), '127.0.0.1', () => console.log('ready'))
