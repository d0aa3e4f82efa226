'use strict';
// Theme and filters. Without it the page shows everything, in the colours of the system.
document.documentElement.classList.add('js');

document.addEventListener('DOMContentLoaded', () => {
  const theme = document.getElementById('theme');
  theme.addEventListener('change', (event) => {
    const value = event.target.value;
    if (value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
  });

  // A wide matrix opens where its first chosen value is.
  for (const cell of document.querySelectorAll('.heat tr:first-child .on')) {
    const box = cell.closest('.scroll');
    box.scrollLeft = cell.offsetLeft + cell.offsetWidth + 40 - box.clientWidth;
  }

  const form = document.getElementById('filters');
  if (!form) return;
  const holder = document.getElementById('cards');
  const shown = document.getElementById('shown');
  const cards = Array.from(holder.children, (element) => ({
    element,
    sets: element.dataset.sets.split(' '),
    reasons: JSON.parse(element.dataset.reasons),
    similarity: element.dataset.similarity === '' ? null : Number(element.dataset.similarity),
    images: Number(element.dataset.images),
    place: Number(element.dataset.place),
  }));

  const within = (value, name) => {
    const low = form.elements[name + '-min'].value;
    const high = form.elements[name + '-max'].value;
    if (low === '' && high === '') return true;
    return value !== null && (low === '' || value >= Number(low)) &&
      (high === '' || value <= Number(high));
  };
  const hasReason = (reasons, wanted) =>
    wanted === '' || (wanted === '-' ? reasons.length === 0 : reasons.includes(wanted.slice(1)));
  // Documents without images have no similarity and come last, whichever way round.
  const orders = {
    '': (a, b) => a.place - b.place,
    up: (a, b) => (a.similarity ?? Infinity) - (b.similarity ?? Infinity) || a.place - b.place,
    down: (a, b) => (b.similarity ?? -Infinity) - (a.similarity ?? -Infinity) || a.place - b.place,
    images: (a, b) => b.images - a.images || a.place - b.place,
  };

  const apply = () => {
    const set = form.elements.set.value;
    const reason = form.elements.reason.value;
    let count = 0;
    for (const card of cards) {
      const fits = (set === '' || card.sets.includes(set)) && hasReason(card.reasons, reason) &&
        within(card.similarity, 'similarity') && within(card.images, 'images');
      card.element.hidden = !fits;
      count += fits;
    }
    shown.value = `${count.toLocaleString('en')} of ${cards.length.toLocaleString('en')} documents`;
  };
  const sort = () => {
    cards.sort(orders[form.elements.order.value]);
    holder.append(...cards.map((card) => card.element));
  };

  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', apply);
  form.elements.order.addEventListener('change', sort);
  // A reset takes effect when its event is over.
  form.addEventListener('reset', () => setTimeout(() => { sort(); apply(); }));
  apply();
});
