/* global document, fetch, Intl, location, matchMedia, sessionStorage, addEventListener, ResizeObserver */
import { Charts, element, hueOf } from './chart.js'
import { Room } from './room.js'
import { faultLine, statusLine } from './status.js'

const maxEntries = 300
const groupedFor = 120_000 // milliseconds in which messages of one person stand under one name
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

const $ = id => document.getElementById(id)
const pick = list => list[Math.floor(Math.random() * list.length)]

// A name for this tab, because two tabs are two people.
let name = sessionStorage.getItem('name') ??
  `${pick(['Amber', 'Coral', 'Indigo', 'Jade', 'Olive', 'Ruby', 'Slate', 'Teal'])} ${pick(['Badger', 'Crane', 'Falcon', 'Heron', 'Lynx', 'Marten', 'Otter', 'Wren'])}`
const remember = () => { sessionStorage.setItem('name', $('name').value = name) }
remember()

const chatFault = faultLine($('chat-fault'))
const dashboardFault = faultLine($('dashboard-fault'))

// Views: a narrow screen shows the chat or the numbers. The address holds which, so that "back" works.

const tabs = [...document.querySelectorAll('.tabs a')]
const newsOf = tab => tab.querySelector('.news')

function showView () {
  const view = document.body.dataset.view = location.hash === '#numbers' ? 'numbers' : 'chat'
  for (const tab of tabs) {
    const current = tab.hash === `#${view}`
    tab.ariaCurrent = current ? 'true' : null
    if (current) newsOf(tab).hidden = true
  }
}
addEventListener('hashchange', showView)
showView()

/** Marks the tab of a view as having news, unless it is the current one. */
function markNews (view) {
  for (const tab of tabs) if (tab.hash === `#${view}` && tab.ariaCurrent === null) newsOf(tab).hidden = false
}

// Chat

const room = new URLSearchParams(location.search).get('room') ?? 'lobby'
const topic = `chat:${room}`
let me = ''
/** Names by session; `null` if the room is too full to be listed. */
let members = new Map()
/** Names of members before the connection was lost, which are not announced again. */
let expected = new Set()
/** The member that the next message is for, `{ session, name }`; `null` means everyone. */
let target = null
let previous = { by: '', at: 0 }
/** The notice of the last return, and how many there have been. */
let returned
let returns = 0

const nameOf = session => members?.get(session) ?? `guest ${session.slice(0, 4)}`

// The log stays at its end, unless the reader has scrolled back.
let following = true
const scroller = $('scroller')
const follow = () => { if (following) scroller.scrollTop = scroller.scrollHeight }
scroller.addEventListener('scroll', () => {
  const { scrollHeight, scrollTop, clientHeight } = scroller
  if (clientHeight > 0) following = scrollHeight - scrollTop - clientHeight < 60
})
new ResizeObserver(follow).observe(scroller)

function append (item) {
  const log = $('log')
  log.append(item)
  while (log.childElementCount > maxEntries) log.firstElementChild.remove()
  follow()
  return item
}

function notice (text) {
  previous = { by: '', at: 0 }
  return append(element('li', 'notice', text))
}

function message ({ by, author, text, at, aside = '', kind = '', isOld = false }) {
  const when = new Date(at)
  const key = `${by} ${kind} ${aside}`
  const item = element('li', kind)
  if (previous.by === key && when - previous.at < groupedFor) item.classList.add('more')
  else previous = { by: key, at: when }
  const meta = element('p', 'meta')
  const person = element('span', 'person', author)
  person.style.setProperty('--hue', hueOf(author))
  meta.append(person, element('span', 'aside', aside), element('time', '', clock.format(when)))
  item.append(meta, element('p', 'text', text))
  append(item)
  if (!isOld) markNews('chat')
}

/** One notice is enough for any number of restarts: the next one takes the place of the last. */
function noticeReturn () {
  returned?.remove()
  returned = notice(`Back again${++returns === 1 ? '' : ` (${returns} times)`}. Messages sent in the meantime may be missing.`)
}

function showMembers (count) {
  const alone = count === 1
  $('members-title').textContent = alone ? 'Only you are here' : `${count} people here. Choose one to write privately.`
  const mayOpenTabs = matchMedia('(hover: hover) and (min-width: 62rem)').matches
  $('log').dataset.empty = !alone
    ? 'No messages yet. Say hello.'
    : mayOpenTabs ? 'No messages yet. Open this page in a second tab to have company.' : 'No messages yet. Others appear here as they open this page.'
  $('members').replaceChildren(...[...members ?? []].map(([session, called]) => {
    const own = session === me
    const entry = element(own ? 'span' : 'button', own ? 'self' : '')
    entry.style.setProperty('--hue', hueOf(called))
    entry.append(element('span', '', called))
    if (own) entry.append(element('small', '', 'you'))
    else {
      entry.type = 'button'
      entry.dataset.session = session
      entry.setAttribute('aria-pressed', session === target?.session)
      entry.setAttribute('aria-label', `Write privately to ${called}`)
      entry.addEventListener('click', () => { aim(session === target?.session ? null : session) })
    }
    const item = element('li')
    item.append(entry)
    return item
  }))
}

/** A private message must not become public because its reader has left: the target stays until the writer changes it. */
const isGone = () => target !== null && members !== null && !members.has(target.session)

function showTarget () {
  if (target !== null && !isGone()) target.name = nameOf(target.session)
  $('target').hidden = target === null
  $('target-name').textContent = target?.name ?? ''
  $('target-state').textContent = isGone() ? '(has left)' : 'only'
  $('text').setAttribute('aria-label', target === null ? 'Message to everyone' : `Private message to ${target.name}`)
  const quotable = target === null ? charts.first : undefined // commands work in public alone
  $('text').placeholder = target !== null ? 'Private message' : quotable === undefined ? 'Message' : `Message, or /quote ${quotable}`
  for (const button of $('members').querySelectorAll('button')) button.setAttribute('aria-pressed', button.dataset.session === target?.session)
}

function aim (session) {
  target = session === null ? null : { session, name: nameOf(session) }
  showTarget()
  $('text').focus()
}

function presence ({ count, state, join = [], leave = [] }) {
  if (state !== undefined) members = new Map(state.map(({ session, info }) => [session, info?.name ?? `guest ${session.slice(0, 4)}`]))
  else if (join.length === 0 && leave.length === 0) members = null
  if (members !== null) {
    for (const { session, info } of join) {
      const before = members.get(session)
      const called = info?.name ?? `guest ${session.slice(0, 4)}`
      members.set(session, called)
      if (before === undefined && session !== me && !expected.delete(called)) notice(`${called} joined`)
      else if (before !== undefined && before !== called) notice(`${before} is now ${called}`)
    }
    for (const { session } of leave) {
      if (members.has(session)) notice(`${nameOf(session)} left`)
      members.delete(session)
    }
  }
  // The list is made anew, and the keyboard's focus must stay on the same member.
  const focused = document.activeElement?.dataset?.session
  showMembers(count)
  showTarget()
  if (focused !== undefined) [...$('members').querySelectorAll('button')].find(button => button.dataset.session === focused)?.focus()
}

const showChatStatus = statusLine($('chat-status'), () => { chat.open() }, $('text'))
const chat = new Room(topic, {
  query: () => ({ name, presence: '1' }),
  onStatus (state, details) {
    showChatStatus(state, details)
    if (state === 'open') chatFault.clear()
    if (state === 'waiting') {
      expected = new Set(members?.values())
      $('members-title').textContent = 'Here before the connection was lost'
    }
  },
  onFrame (frame, isOld) {
    if (frame.type === 'hello') {
      me = frame.session
      if (frame.recovered === false) noticeReturn()
    }
    if (frame.type === 'presence') presence(frame)
    if (frame.type === 'message') {
      const { session, name: author, text, at } = frame.data
      message({ by: session ?? 'server', author, text, at, kind: session === undefined ? 'server' : session === me ? 'own' : '', isOld })
    }
    if (frame.type === 'direct') message({ by: frame.from, author: nameOf(frame.from), text: frame.data.text, at: Date.now(), aside: 'privately, to you', kind: 'private' })
    if (frame.type === 'error') chatFault.show(frame.error)
  }
})

$('composer').addEventListener('submit', async event => {
  event.preventDefault()
  const input = $('text')
  const text = input.value.trim()
  if (text === '') return
  const to = target
  input.value = ''
  try {
    if (isGone()) throw new Error('Not sent, because your reader has left.')
    if (to !== null && text.startsWith('/')) throw new Error('Commands work only in messages to everyone.')
    await chat.request(to === null ? { type: 'message', data: { text } } : { type: 'direct', to: to.session, data: { text } })
    chatFault.clear()
    if (to !== null) message({ by: me, author: name, text, at: Date.now(), aside: `privately, to ${to.name}`, kind: 'own private' })
  } catch (error) {
    chatFault.show(error)
    if (input.value === '') input.value = text
  }
})

$('target-clear').addEventListener('click', () => { aim(null) })
$('composer').addEventListener('keydown', event => {
  if (event.key === 'Escape' && target !== null) aim(null)
})

$('name').addEventListener('change', async () => {
  const wanted = $('name').value.trim()
  try {
    if (wanted === '') throw new Error('a name has 1 to 32 characters')
    if (chat.connected) await chat.request({ type: 'presence', info: { name: wanted } })
    name = wanted
    chat.open() // connects if the old name was refused
    chatFault.clear()
  } catch (error) {
    chatFault.show(error)
  }
  remember()
})

// Today's numbers

const charts = new Charts($('charts'), $('empty'))
const showDashboardStatus = statusLine($('dashboard-status'), () => { dashboard.open() }, $('random'))
const dashboard = new Room('dailyNews', {
  onStatus (state, details) {
    showDashboardStatus(state, details)
    if (state === 'open') dashboardFault.clear()
  },
  onFrame (frame, isOld) {
    // All numbers that are kept follow.
    if (frame.type === 'hello' && frame.recovered !== true) charts.reset()
    if (frame.type === 'message') {
      charts.add(frame.data, !isOld)
      if (!isOld) markNews('numbers')
    }
    if (frame.type === 'error') dashboardFault.show(frame.error)
    showTarget()
  }
})

async function post (records) {
  const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(records) }
  try {
    const response = await fetch('/dailyDashBoard', request).catch(() => { throw new Error('The server cannot be reached. Nothing was added.') })
    if (!response.ok) throw new Error(`Not added: ${(await response.json()).message}`)
    dashboardFault.clear()
  } catch (error) {
    dashboardFault.show(error)
  }
}

$('post').addEventListener('submit', event => {
  event.preventDefault()
  post([{ name: $('post-name').value.trim(), value: $('post-value').valueAsNumber, at: new Date().toISOString() }])
})

$('random').addEventListener('click', () => {
  const walk = (figure, start, step) => {
    const value = (charts.last(figure) ?? start) + (Math.random() - 0.45) * step
    return { name: figure, value: Math.max(0, Math.round(value)), at: new Date().toISOString() }
  }
  post([walk('visits', 1_200, 240), walk('orders', 85, 24), walk('refunds', 9, 6), walk('response ms', 42, 14)])
})

// Start

$('chat-title').textContent = room.charAt(0).toUpperCase() + room.slice(1)
$('topic').textContent = topic
$('curl').textContent = `curl ${location.origin}/dailyDashBoard \\
  -H 'content-type: application/json' \\
  -d '[{"name":"visits","value":1234}]'`
chat.open()
dashboard.open()

function wake () {
  chat.wake()
  dashboard.wake()
}
addEventListener('online', wake)
document.addEventListener('visibilitychange', () => { if (!document.hidden) wake() })
