/* global document, fetch, Intl, location, sessionStorage, addEventListener, setInterval, clearInterval, ResizeObserver */
import { Charts, element, hueOf } from './chart.js'
import { Room } from './room.js'

const maxEntries = 300
const groupedFor = 120_000 // milliseconds in which a person's messages stand under one name
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

const $ = id => document.getElementById(id)
const pick = list => list[Math.floor(Math.random() * list.length)]

// A name for this tab: two tabs are two people.
let name = sessionStorage.getItem('name') ??
  `${pick(['Amber', 'Coral', 'Indigo', 'Jade', 'Olive', 'Ruby', 'Slate', 'Teal'])} ${pick(['Badger', 'Crane', 'Falcon', 'Heron', 'Lynx', 'Marten', 'Otter', 'Wren'])}`
const remember = () => { sessionStorage.setItem('name', $('name').value = name) }
remember()

/** A line that says what went wrong, until the next success. */
function faultLine (node) {
  return {
    show (error) {
      node.textContent = error.message
      node.hidden = false
    },
    clear () { node.hidden = true }
  }
}
const chatFault = faultLine($('chat-fault'))
const dashboardFault = faultLine($('dashboard-fault'))

/** Connection status in words, with a countdown and a way round it. */
function statusLine (node, retry) {
  let countdown
  return (state, { wait = 0, reason = '' }) => {
    clearInterval(countdown)
    node.dataset.state = state
    if (state === 'connecting') node.textContent = 'Connecting…'
    if (state === 'open') node.textContent = 'Connected'
    if (state !== 'waiting' && state !== 'stopped') return
    const text = element('span', '', state === 'stopped' ? `Stopped: ${reason}` : 'Connection lost')
    const button = element('button', '', 'Connect now')
    button.type = 'button'
    button.addEventListener('click', retry)
    node.replaceChildren(text, button)
    if (state === 'stopped') return
    const seconds = element('span')
    seconds.ariaHidden = 'true' // not to be read out every second
    text.after(seconds)
    const until = Date.now() + wait
    const show = () => { seconds.textContent = `next try in ${Math.max(1, Math.ceil((until - Date.now()) / 1_000))} s` }
    show()
    countdown = setInterval(show, 1_000)
  }
}

// Chat

const topic = `chat:${new URLSearchParams(location.search).get('room') ?? 'lobby'}`
let me = ''
/** Names by session; `null` where the room is too full to be listed. */
let members = new Map()
/** The session that the next message is for; `null`: everybody. */
let target = null
let previous = { by: '', at: 0 }

const nameOf = session => members?.get(session) ?? `guest ${session.slice(0, 4)}`

// The log follows what is new, unless somebody has scrolled back to read.
let following = true
const follow = () => { if (following) $('log').scrollTop = $('log').scrollHeight }
$('log').addEventListener('scroll', () => {
  const { scrollHeight, scrollTop, clientHeight } = $('log')
  following = scrollHeight - scrollTop - clientHeight < 60
})
new ResizeObserver(follow).observe($('log'))

function append (item) {
  const log = $('log')
  log.append(item)
  while (log.childElementCount > maxEntries) log.firstElementChild.remove()
  follow()
}

function notice (text) {
  previous = { by: '', at: 0 }
  append(element('li', 'notice', text))
}

function message ({ by, author, text, at, aside = '', kind = '' }) {
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
}

function showMembers (count) {
  $('members-title').textContent = count === 1 ? 'Only you are here' : `${count} people here; choose one to write privately`
  $('members').replaceChildren(...[...members ?? []].map(([session, called]) => {
    const own = session === me
    const entry = element(own ? 'span' : 'button', own ? 'self' : '')
    entry.style.setProperty('--hue', hueOf(called))
    entry.append(element('span', '', called))
    if (own) entry.append(element('small', '', 'you'))
    else {
      entry.type = 'button'
      entry.dataset.session = session
      entry.setAttribute('aria-pressed', session === target)
      entry.setAttribute('aria-label', `Write privately to ${called}`)
      entry.addEventListener('click', () => { aim(session === target ? null : session) })
    }
    const item = element('li')
    item.append(entry)
    return item
  }))
}

function aim (session) {
  target = session
  $('target').hidden = session === null
  $('target-name').textContent = session === null ? '' : nameOf(session)
  for (const button of $('members').querySelectorAll('button')) button.setAttribute('aria-pressed', button.dataset.session === session)
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
      if (before === undefined && session !== me) notice(`${called} joined`)
      else if (before !== undefined && before !== called) notice(`${before} is now ${called}`)
    }
    for (const { session } of leave) {
      if (members.has(session)) notice(`${nameOf(session)} left`)
      members.delete(session)
    }
    if (target !== null && !members.has(target)) aim(null)
    if (target !== null) $('target-name').textContent = nameOf(target)
  }
  // Rebuilding the list must not throw the keyboard's user out of it.
  const focused = document.activeElement?.dataset?.session
  showMembers(count)
  if (focused !== undefined) [...$('members').querySelectorAll('button')].find(button => button.dataset.session === focused)?.focus()
}

const chat = new Room(topic, {
  query: () => ({ name, presence: '1' }),
  onStatus: statusLine($('chat-status'), () => { chat.open() }),
  onFrame (frame) {
    if (frame.type === 'hello') {
      me = frame.session
      if (frame.recovered === false) notice('Back again. What was said meanwhile is not kept.')
    }
    if (frame.type === 'presence') presence(frame)
    if (frame.type === 'message') {
      const { session, name: author, text, at } = frame.data
      message({ by: session ?? 'server', author, text, at, kind: session === undefined ? 'server' : session === me ? 'own' : '' })
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
    await chat.request(to === null ? { type: 'message', data: { text } } : { type: 'direct', to, data: { text } })
    chatFault.clear()
    if (to !== null) message({ by: me, author: name, text, at: Date.now(), aside: `privately, to ${nameOf(to)}`, kind: 'own private' })
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
    chat.open() // where the old name was refused
    chatFault.clear()
  } catch (error) {
    chatFault.show(error)
  }
  remember()
})

// Dashboard

const charts = new Charts($('charts'), $('empty'))
const dashboard = new Room('dailyNews', {
  onStatus: statusLine($('dashboard-status'), () => { dashboard.open() }),
  onFrame (frame) {
    if (frame.type === 'direct') charts.reset(frame.data) // what was before we came
    if (frame.type === 'message') charts.add(frame.data)
    if (frame.type === 'error') dashboardFault.show(frame.error)
  }
})

async function post (records) {
  try {
    const response = await fetch('/dailyDashBoard', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(records) })
    if (!response.ok) throw new Error((await response.json()).message)
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

$('curl').textContent = `curl ${location.origin}/dailyDashBoard \\
  -H 'content-type: application/json' \\
  -d '[{"name":"visits","value":1234}]'`

// Off we go

$('chat-title').textContent = topic
chat.open()
dashboard.open()
addEventListener('online', () => {
  chat.wake()
  dashboard.wake()
})
