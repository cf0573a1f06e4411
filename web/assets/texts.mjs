// Everything that the page says, by language. A language has the same members as `en`.

const en = {
  room: 'Waiting room',
  atShop: (name) => `Waiting room of ${name}`,

  // By view: the heading, and what happens next.
  loading: { title: 'One moment …', lead: '' },
  busy: { title: 'One moment …', lead: 'Very many people are coming in just now. This page keeps trying by itself.' },
  scheduled: { title: 'You are in line', lead: 'The sale has not opened yet. You keep your place, in the order of arrival.' },
  waiting: { title: 'You are in line', lead: 'You will be let in automatically when it is your turn. There is no need to reload.' },
  next: { title: 'You are next', lead: 'You will be let in as soon as there is room in the shop.' },
  paused: { title: 'The line is paused', lead: 'Nobody is let in for the moment. Your place is kept, and the line will go on without your doing.' },
  soldOut: { title: 'Sold out for the moment', lead: 'If tickets come back, the line goes on and you are told here. You may stay or leave.' },
  admitted: { title: 'It is your turn', lead: 'A place in the shop is kept for you.' },
  entering: { title: 'It is your turn', lead: 'We are taking you to the shop …' },
  active: { title: 'You may enter the shop', lead: 'Your time in the shop is running.' },
  ended: { title: 'Your visit to the shop has ended', lead: 'If you want to go in again, join the line again.' },
  expiredAbsent: { title: 'Your place has expired', lead: 'This page was away for longer than places are kept. You can join again, at the end of the line.' },
  expiredMissed: { title: 'Your place has expired', lead: 'It was your turn, but nobody came in time. You can join again, at the end of the line.' },
  left: { title: 'You have left the line', lead: 'You can join again, at the end of the line.' },
  closed: { title: 'This line is closed', lead: 'The sale is over. Thank you for your patience.' },
  taken: { title: 'This place is in use', lead: 'Somebody else has entered the shop with it. You can join again, at the end of the line.' },
  missing: { title: 'There is no such line', lead: 'Please go back to the shop and open it again.' },
  noReturn: { title: 'This address leads nowhere', lead: 'It names no page of the shop. Please go back to the shop and open it again.' },
  identity: { title: 'Please sign in first', lead: 'This line is for signed-in customers. Please open it from the shop or its app.' },
  cookies: { title: 'Your place cannot be kept', lead: 'Your browser refuses the cookie that holds it. Please allow cookies for this page and load it again.' },
  refused: { title: 'Something went wrong', lead: 'The waiting room did not accept this. You can try again.' },

  ahead: 'Ahead of you',
  position: 'Your number',
  progress: 'How far the line has moved for you',
  waitedFor: (time) => `You have been waiting for ${time}.`,
  wait: (from, to) => (from === to ? `About ${from} min to go.` : `About ${from} to ${to} min to go.`),
  opensIn: (time) => `The sale opens in ${time}.`,
  claimWithin: (time) => `It is kept for another ${time}.`,
  inShopFor: (time) => `${time} left in the shop.`,
  keptUntil: (time) => `If you close this page or lose the connection, your place is kept until ${time}.`,

  offline: 'Connection lost. This page keeps trying.',
  offlineKept: (time) => `Connection lost. Your place is kept until ${time}. This page keeps trying.`,
  crowded: 'The waiting room is very busy just now. This page keeps trying.',
  crowdedKept: (time) => `The waiting room is very busy just now. Your place is kept until ${time}.`,
  backAgain: 'Connected again.',
  stale: 'We cannot see the line just now; these numbers may be a little old. Your place is safe.',
  likelySoldOut: 'What is left will likely not reach your place.',
  clickOnly: 'The shop did not accept the last entry. Please try once more.',

  enter: 'Enter the shop',
  enterWithin: (time) => `Enter the shop (${time})`,
  again: 'Join the line again',
  retry: 'Try again',
  leave: 'Leave the line',
  confirm: 'Leave the line? Your place goes to the next person, and you would start again at the end.',
  stay: 'Keep my place',
  reallyLeave: 'Leave the line',

  tabWaiting: (ahead) => `${ahead} ahead of you`,
  tabTurn: (time) => `Your turn! ${time}`,
  sayAhead: (ahead) => `${ahead} ahead of you.`,
  sayMinute: 'One minute left to enter the shop.',
};

export const languages = { en };
