/* global document, crypto, fetch, Intl, location, matchMedia, sessionStorage, addEventListener, ResizeObserver */
import { createClient } from './fastify-rooms/client/index.js'
import { assistantBox } from './assistant.js'
import { Charts, element, hueOf } from './chart.js'
import { faultLine, statusLine } from './status.js'

const maxEntries = 300
const maxKept = 200 // messages that the topics keep
const groupedFor = 120_000 // milliseconds in which messages of one person stand under one name
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

const $ = id => document.getElementById(id)
const pick = list => list[Math.floor(Math.random() * list.length)]

// A person for this tab, because two tabs are two people. A tab that the browser duplicates has the same, and is listed with it.
const user = sessionStorage.getItem('user') ?? crypto.getRandomValues(new Uint32Array(3)).join('-')
sessionStorage.setItem('user', user)
let name = sessionStorage.getItem('name') ??
  `${pick(['Amber', 'Coral', 'Indigo', 'Jade', 'Olive', 'Ruby', 'Slate', 'Teal'])} ${pick(['Badger', 'Crane', 'Falcon', 'Heron', 'Lynx', 'Marten', 'Otter', 'Wren'])}`
const remember = () => { sessionStorage.setItem('name', $('name').value = name) }
remember()

const chatFault = faultLine($('chat-fault'))
const dashboardFault = faultLine($('dashboard-fault'))

// Views: a narrow screen shows the chat or the numbers. The address holds which, so that "back" works.

const tabs = [...document.querySelectorAll('.tabs a')]
const views = tabs.map(({ hash }) => hash.slice(1))
const newsOf = tab => tab.querySelector('.news')

function showView () {
  const view = document.body.dataset.view = views.find(name => location.hash === `#${name}`) ?? 'chat'
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

/** Ids of messages that are shown, because a message may come again in a snapshot. */
const shown = new Set()
const isNew = id => !shown.has(id) && shown.add(id)

// Chat

const place = new URLSearchParams(location.search).get('room') ?? 'lobby'
const topic = `chat:${place}`
let chat
/** The people in the room by user, `{ name, tabs }` each; `null` if the room is too full to be listed. */
let people = new Map()
/** Users of before the connection was lost, who are not announced again. */
const expected = new Set()
/** The person that the next message is for, `{ user, name }`; `null` means everyone. */
let target = null
let previous = { by: '', at: 0 }
/** The notice of the last return, and how many there have been. */
let returned
let returns = 0

/** A visitor without a name, such as another program that only listens, has no user either. */
const userOf = ({ user, session }) => user ?? `guest ${session.slice(0, 4)}`
const nameOf = user => people?.get(user)?.name ?? user

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

function chatMessage ({ id, data }, isOld) {
  if (!isNew(id)) return
  const { user: by = 'server', name: author, text, at } = data
  message({ by, author, text, at, kind: by === user ? 'own' : by === 'server' ? 'server' : '', isOld })
}

/** One notice is enough for any number of restarts: the next one takes the place of the last. */
function noticeReturn () {
  returned?.remove()
  returned = notice(`Back again${++returns === 1 ? '' : ` (${returns} times)`}. Messages sent in the meantime may be missing.`)
}

function showMembers () {
  const count = people?.size ?? chat.getSnapshot().count
  const alone = count === 1
  $('members-title').textContent = alone ? 'Only you are here' : `${count} people here`
  if (!alone) $('members-title').append(element('span', 'hint', '. Choose one to write privately.'))
  const mayOpenTabs = matchMedia('(hover: hover) and (min-width: 62rem)').matches
  $('log').dataset.empty = !alone
    ? 'No messages yet. Say hello.'
    : mayOpenTabs ? 'No messages yet. Open this page in a second tab to have company.' : 'No messages yet. Others appear here as they open this page.'
  $('members').replaceChildren(...[...people ?? []].map(([key, { name: called, tabs }]) => {
    const own = key === user
    const isReader = !own && !key.startsWith('guest ')
    const entry = element(isReader ? 'button' : 'span', own ? 'self' : '')
    entry.style.setProperty('--hue', hueOf(called))
    entry.append(element('span', '', called))
    const notes = [...own ? ['you'] : [], ...tabs > 1 ? [`${tabs} tabs`] : []].join(', ')
    if (notes !== '') entry.append(element('small', '', notes))
    if (isReader) {
      entry.type = 'button'
      entry.dataset.user = key
      entry.setAttribute('aria-pressed', key === target?.user)
      entry.setAttribute('aria-label', `Write privately to ${called}`)
      entry.addEventListener('click', () => { aim(key === target?.user ? null : key) })
    }
    const item = element('li')
    item.append(entry)
    return item
  }))
}

/** A private message must not become public because its reader has left: the target stays until the writer changes it. */
const isGone = () => target !== null && people !== null && !people.has(target.user)

function showTarget () {
  if (target !== null && !isGone()) target.name = nameOf(target.user)
  $('target').hidden = target === null
  $('target-name').textContent = target?.name ?? ''
  $('target-state').textContent = isGone() ? '(has left)' : 'only'
  $('text').setAttribute('aria-label', target === null ? 'Message to everyone' : `Private message to ${target.name}`)
  const quotable = target === null ? charts.first : undefined // commands work in public alone
  $('text').placeholder = target !== null ? 'Private message' : quotable === undefined ? 'Message' : `Message, or /quote ${quotable}`
  for (const button of $('members').querySelectorAll('button')) button.setAttribute('aria-pressed', button.dataset.user === target?.user)
}

function aim (key) {
  target = key === null ? null : { user: key, name: nameOf(key) }
  showTarget()
  $('text').focus()
}

/** Shows who is here, each person once, however many tabs they have. @param isFirst - the list of a room that was joined, and not a change of it */
function presence (members, isFirst) {
  const before = people
  people = members && new Map()
  for (const member of members ?? []) {
    const key = userOf(member)
    people.set(key, { name: member.info?.name ?? key, tabs: (people.get(key)?.tabs ?? 0) + 1 })
  }
  if (!isFirst && people !== null && before !== null) {
    for (const [key, { name: called }] of people) {
      const known = before.get(key)
      if (known === undefined && key !== user && !expected.delete(key)) notice(`${called} joined`)
      else if (known !== undefined && known.name !== called) notice(`${known.name} is now ${called}`)
    }
    for (const [key, { name: called }] of before) if (!people.has(key)) notice(`${called} left`)
  }
  // The list is made anew, and the keyboard's focus must stay on the same person.
  const focused = document.activeElement?.dataset?.user
  showMembers()
  showTarget()
  if (focused !== undefined) [...$('members').querySelectorAll('button')].find(button => button.dataset.user === focused)?.focus()
}

const showChatStatus = statusLine($('chat-status'))

function enterChat (client, { id, messages }) {
  for (const message of messages) chatMessage(message, true)
  chat = client.room(topic, {
    since: id ?? '0',
    presence: true,
    // Messages are missing, because the server has been started again, or keeps no more of them.
    reload (snapshot) {
      noticeReturn()
      for (const message of snapshot.messages) chatMessage(message)
    }
  })
  let last
  let isFirst = true
  chat.subscribe(() => {
    const state = chat.getSnapshot()
    showChatStatus(state)
    if (state.members === last?.members && state.count === last.count) return
    last = state
    presence(state.members, isFirst)
    isFirst = false
  })
  last = chat.getSnapshot()
  showChatStatus(last)
  chat.on('status', ({ status }) => {
    if (status === 'open') chatFault.clear()
    else if (status !== 'connecting') {
      isFirst = true
      for (const key of people?.keys() ?? []) expected.add(key)
      $('members-title').textContent = 'Here before the connection was lost'
    }
  })
  chat.on('message', chatMessage)
  chat.on('direct', ({ from, user: by = from, data }) => {
    message({ by, author: nameOf(by), text: data.text, at: Date.now(), aside: 'privately, to you', kind: 'private' })
  })
}

/** Returns an error of the client in a visitor's words. */
function inWords (error) {
  if (error.code === 'unsent') return new Error('Not connected. Send it again once the connection is back.')
  if (error.code === 'unknown') return new Error('The connection was lost before the answer came, so this may not have arrived.')
  return error
}

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
    await (to === null ? chat.publish({ text }) : chat.direct(`user:${to.user}`, { text }))
    chatFault.clear()
    if (to !== null) message({ by: user, author: name, text, at: Date.now(), aside: `privately, to ${to.name}`, kind: 'own private' })
  } catch (error) {
    chatFault.show(inWords(error))
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
    const { status } = chat.getSnapshot()
    if (status === 'open') await chat.presence({ name: wanted })
    name = wanted // the next connection carries it
    if (status === 'closed') enter() // the old name was refused
    chatFault.clear()
  } catch (error) {
    chatFault.show(inWords(error))
  }
  remember()
})

// Today's numbers

const charts = new Charts($('charts'), $('empty'))
const showDashboardStatus = statusLine($('dashboard-status'))

function numbers ({ id, data }, isOld) {
  if (!isNew(id)) return
  charts.add(data, !isOld)
  if (!isOld) markNews('numbers')
  showTarget()
}

function enterDashboard (client, { id, messages }) {
  for (const message of messages) numbers(message, true)
  const dashboard = client.room('dailyNews', {
    since: id ?? '0',
    // After a restart the server knows no numbers from before. The curves go on from those that are drawn.
    reload (snapshot) { for (const message of snapshot.messages) numbers(message) }
  })
  dashboard.subscribe(() => { showDashboardStatus(dashboard.getSnapshot()) })
  showDashboardStatus(dashboard.getSnapshot())
  dashboard.on('status', ({ status }) => { if (status === 'open') dashboardFault.clear() })
  dashboard.on('message', numbers)
}

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

const assistant = assistantBox(() => { markNews('assistant') })
let client

/** Joins all topics over one connection. What they keep is read first, so that the page is filled before it is connected. */
async function enter () {
  client?.close()
  const own = client = createClient({ url: '/', multiplex: '/rooms', token: () => `${user}.${encodeURIComponent(name)}` })
  // Without an answer the join says why, or tries again, and then gets all that is kept.
  const read = topic => own.get(topic, { limit: maxKept }).catch(() => ({ messages: [] }))
  const [talk, news] = await Promise.all([read(topic), read('dailyNews')])
  enterChat(own, talk)
  enterDashboard(own, news)
  assistant.use(own).catch(() => {}) // then there is no answer to read on
}

$('chat-title').textContent = place.charAt(0).toUpperCase() + place.slice(1)
$('topic').textContent = topic
$('curl').textContent = `curl ${location.origin}/dailyDashBoard \\
  -H 'content-type: application/json' \\
  -d '[{"name":"visits","value":1234}]'`
enter()
