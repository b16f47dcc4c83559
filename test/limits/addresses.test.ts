import t from 'tap'
import { addressKey } from '../../lib/limits/address-key.ts'
import { Addresses } from '../../lib/limits/addresses.ts'
import { draw, level } from '../../lib/limits/token-bucket.ts'

const key = (address: string | undefined): string => addressKey(address, true)

t.test('an IPv4 address has one key in all its spellings', async t => {
  for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:c000:201', '0:0:0:0:0:ffff:192.0.2.1', '64:ff9b::192.0.2.1', '64:ff9b::c000:201', '192.0.2.1:443', '[::ffff:192.0.2.1]:443']) {
    t.equal(key(address), '192.0.2.1', address)
  }
  t.not(key('192.0.2.2'), key('192.0.2.1'))
})

t.test('IPv6 addresses are counted by their network of 64 bits', async t => {
  for (const address of ['2001:db8:1:2::1', '2001:0db8:0001:0002:ffff:ffff:ffff:ffff', '2001:DB8:1:2:3:4:5:6', '2001:db8:1:2::', '2001:db8:1:2::192.0.2.1', '[2001:db8:1:2::1]', '[2001:db8:1:2::1]:443']) {
    t.equal(key(address), '2001:db8:1:2::/64', address)
  }
  t.equal(key('2001:db8:1:3::1'), '2001:db8:1:3::/64')
  t.equal(key('fe80::1%eth0'), 'fe80:0:0:0::/64')
  t.equal(key('::'), '0:0:0:0::/64')
  t.equal(key('::2'), '0:0:0:0::/64')
  t.equal(key('1::1'), '1:0:0:0::/64', 'the network differs from that of this machine')
})

t.test('this machine is one key, and so is a socket without an address; an address of a header is another', async t => {
  for (const address of ['127.0.0.1', '127.8.9.1', '::1', '0:0:0:0:0:0:0:1', '::ffff:127.0.0.1', undefined]) t.equal(key(address), 'loopback', String(address))
  t.equal(addressKey('127.0.0.1', false), '127.0.0.1')
  t.equal(addressKey('::1', false), '0:0:0:0::/64')
  t.equal(addressKey(undefined, false), 'loopback', 'no header can claim the key of a missing address')
})

t.test('a text that is not an address is counted as one key', async t => {
  for (const word of ['', 'unknown', '_hidden', '300.1.1.1', '1.2.3', '2001:db8::1::2', '[nonsense]:80', '1.2.3.4:5:6', 'x'.repeat(10_000)]) t.equal(addressKey(word, false), 'unknown', word.slice(0, 20))
})

const rate = { capacity: 10, per: 1_000 }
const create = (connections?: number, rateIsGiven = false): Addresses => new Addresses({ connections, rate, rateIsGiven })

t.test('an address is full at its bound, and is removed with its last connection', async t => {
  const addresses = create(2)
  const [one, two] = [addresses.enter('a', 0), addresses.enter('a', 0)]
  t.equal(one, two)
  t.ok(addresses.isFull('a'))
  t.notOk(addresses.isFull('b'))
  addresses.leave(one, 0)
  t.notOk(addresses.isFull('a'))
  t.equal(addresses.size, 1)
  addresses.leave(one, 0)
  t.equal(addresses.size, 0)
})

t.test('the default bound is 100 for each address, and none for this machine', async t => {
  const addresses = create()
  for (let i = 0; i < 100; i++) {
    t.notOk(addresses.isFull('a'))
    addresses.enter('a', 0)
    addresses.enter('loopback', 0)
  }
  t.ok(addresses.isFull('a'))
  t.notOk(addresses.isFull('loopback'))
  const given = create(1)
  given.enter('loopback', 0)
  t.ok(given.isFull('loopback'), 'a given bound holds for all')
})

t.test('an address that reconnects finds its bucket as before; the address is removed once its bucket is full again', async t => {
  const addresses = create()
  const source = addresses.enter('a', 0)
  for (let i = 0; i < 6; i++) draw(source, rate, 0)
  addresses.leave(source, 0)
  addresses.sweep(100)
  t.equal(addresses.size, 1)
  const again = addresses.enter('a', 100)
  t.equal(level(again, rate, 100), 5)
  addresses.sweep(10_000)
  t.equal(addresses.size, 1, 'the address has a connection')
  draw(again, rate, 10_000)
  addresses.leave(again, 10_000)
  addresses.sweep(10_099)
  t.equal(addresses.size, 1)
  addresses.sweep(10_100)
  t.equal(addresses.size, 0)
})

t.test('by default the rate of an address does not apply to this machine', async t => {
  const local = create().enter('loopback', 0)
  for (let i = 0; i < 10_000; i++) draw(local, local.rate, 0)
  t.ok(level(local, local.rate, 0) > 0)
  t.same(create().enter('a', 0).rate, rate)
  t.same(create(undefined, true).enter('loopback', 0).rate, rate)
})
