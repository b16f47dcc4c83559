/* global navigator, setInterval, clearInterval */
import { element } from './chart.js'

/** A line that says what went wrong, until it is cleared. */
export function faultLine (node) {
  return {
    show ({ message }) {
      node.textContent = message.charAt(0).toUpperCase() + message.slice(1)
      node.hidden = false
    },
    clear () { node.hidden = true }
  }
}

/**
 * The state of a connection in words, with a countdown to the next attempt and a button that makes it at once. The button stays
 * in place through failed attempts, so that the keyboard's focus stays on it; with the connection back, focus moves to `next`.
 */
export function statusLine (node, retry, next) {
  const words = element('span', 'words')
  const text = element('span')
  const detail = element('span', 'detail')
  const button = element('button', '', 'Try now')
  let countdown
  let lost = false
  detail.ariaHidden = 'true' // a screen reader would read out every second
  button.type = 'button'
  button.hidden = true
  button.addEventListener('click', retry)
  words.append(text, detail)
  node.append(words, button)

  /** Writes only what changes, because a screen reader reads out each write. */
  const say = state => { if (text.textContent !== state) text.textContent = state }

  return (state, { wait = 0, reason = '' }) => {
    clearInterval(countdown)
    node.dataset.state = state
    detail.textContent = ''
    if (state === 'connecting') {
      if (lost) detail.textContent = 'trying…'
      else say('Connecting…')
      return
    }
    lost = state !== 'open'
    if (!lost) {
      if (node.contains(node.ownerDocument.activeElement)) next.focus()
      say('Connected')
    }
    button.hidden = !lost
    if (state === 'stopped') say(`Not connected: ${reason}`)
    if (state !== 'waiting') return
    say(navigator.onLine ? 'Connection lost' : 'You are offline')
    const until = Date.now() + wait
    const show = () => { detail.textContent = `retry in ${Math.max(1, Math.ceil((until - Date.now()) / 1_000))} s` }
    show()
    countdown = setInterval(show, 1_000)
  }
}
