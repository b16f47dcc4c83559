/* global navigator */
import { element } from './chart.js'

/** Shows what went wrong, until it is cleared. */
export function faultLine (node) {
  return {
    show ({ message }) {
      node.textContent = message.charAt(0).toUpperCase() + message.slice(1)
      node.hidden = false
    },
    clear () { node.hidden = true }
  }
}

/** Returns the state of a room in words. */
export function wordsOf ({ status, transport, error }) {
  if (status === 'open') return transport === 'websocket' ? 'Connected' : 'Connected, without WebSocket'
  if (status === 'connecting') return 'Connecting…'
  if (status === 'closed') return `Not connected${error === null ? '' : `: ${error.message}`}`
  if (!navigator.onLine) return 'You are offline'
  return status === 'reconnecting' ? 'Connection lost, trying again…' : 'Paused while nobody looks'
}

/** Returns a function that shows the state of a room in words. It writes only changes, because a screen reader reads out each write. */
export function statusLine (node) {
  const words = element('span', '', 'Connecting…')
  node.append(words)
  return state => {
    node.dataset.state = state.status
    const text = wordsOf(state)
    if (words.textContent !== text) words.textContent = text
  }
}
