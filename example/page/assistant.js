/* global document, fetch, sessionStorage */
import { faultLine } from './status.js'

const ends = {
  done: 'Done',
  stopped: 'Stopped',
  failed: 'The assistant has failed',
  lost: 'Broken off, because the server was stopped'
}

/**
 * The box of the assistant. An answer is a topic of its own, which the server writes whether the page reads or not. The page keeps the name of the topic, so that it
 * reads on after a reload.
 * @param onEnd - is called when an answer has ended
 */
export function assistantBox (onEnd) {
  const $ = id => document.getElementById(id)
  const fault = faultLine($('assistant-fault'))
  let client
  let room

  /** @param state - `reading`, or any other state, in which a question can be asked */
  const show = (state, words) => {
    const isReading = state === 'reading'
    const hadFocus = document.activeElement === $('stop')
    $('assistant-status').dataset.state = state
    $('assistant-status').textContent = words
    $('answer').ariaBusy = isReading ? 'true' : null // a screen reader reads it out when it is whole
    $('ask').hidden = isReading
    $('stop').hidden = !isReading
    if (hadFocus && !isReading) $('question').focus()
  }

  const post = async (path, body) => {
    const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
    const response = await fetch(path, request).catch(() => { throw new Error('The server cannot be reached.') })
    if (!response.ok) throw new Error((await response.json()).message)
    return response.json()
  }

  /** Reads an answer from its first word, and on. */
  const read = topic => {
    $('answer').textContent = ''
    show('reading', 'Writing…')
    room = client.room(topic, {
      since: '0',
      // Words are missing, because the server has been started again, or keeps no more of them.
      reload ({ messages, ended }) {
        if (messages.length > 0 || ended !== undefined) return
        room.leave()
        show('lost', ends.lost)
      }
    })
    room.on('message', ({ data }) => {
      const node = $('answer-scroller')
      const isAtEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 40
      $('answer').append(data)
      if (isAtEnd) node.scrollTop = node.scrollHeight
    })
    room.on('end', ({ reason }) => {
      show(reason, ends[reason])
      onEnd()
    })
    room.on('status', ({ status, error }) => {
      if (status === 'open') show('reading', 'Writing…')
      else if (status !== 'closed') show('reading', 'Connection lost. Reads on when it is back.')
      else if (error !== null) show('lost', error.message)
    })
  }

  $('ask-form').addEventListener('submit', async event => {
    event.preventDefault()
    const question = $('question').value.trim()
    if (question === '' || !$('stop').hidden) return
    try {
      const { topic } = await post('/answers', { question })
      sessionStorage.setItem('answer', topic)
      $('question').value = ''
      fault.clear()
      read(topic)
    } catch (error) {
      fault.show(error)
    }
  })

  $('stop').addEventListener('click', async () => {
    try {
      await post(`/answers/${room.topic.slice('answer:'.length)}/stop`, {})
      fault.clear()
    } catch (error) {
      fault.show(error)
    }
  })

  return {
    /** Begins to use a client, and reads on the answer of before a reload, if there is one and the server still has it. */
    async use (next) {
      client = next
      const topic = sessionStorage.getItem('answer')
      if (topic === null) return
      const { messages, ended } = await client.get(topic)
      if (messages.length > 0 || ended !== undefined) read(topic)
      else sessionStorage.removeItem('answer')
    }
  }
}
