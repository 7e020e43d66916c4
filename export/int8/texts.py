"""Texts that show an encoder what it will read, where the user gives none: the built-in calibration set of int8.

Activation scales, smoothing factors and weight rounding are fitted to what these texts make of the activations, for any
model of the BERT family. They are therefore varied rather than many: one token to about 200 words; reviews of either
opinion, news, questions, chat, letters, instructions, code and figures; lower case, capitals and stray punctuation;
other languages and scripts; two sentences that read as a pair. All were written for this purpose and stem from no data
set, so that an accuracy measured on one says something, and so that they may ship.
"""

from __future__ import annotations

TEXTS: tuple[str, ...] = (
    "",
    "Good.",
    "No.",
    "why",
    "ok",
    "Wonderful!",
    "Refund, please.",
    "???",
    "42",
    "Not bad at all.",
    "Utterly dull.",
    "thx",
    "A triumph",
    "Never again.",
    "See you at 7.",
    "it was fine, I guess",
    "What a waste of a Sunday.",
    "a quiet, tender portrait of two brothers who no longer know how to talk",
    "overlong, overlit and strangely proud of both",
    "the jokes land about as often as the plane does",
    "warm without being sticky",
    "has the look of an expensive advert and roughly the same depth",
    "I laughed until my sides hurt, then I laughed again on the way home.",
    "The lead cannot act, the script cannot end, and I could not care less.",
    "If you only see one documentary about beekeeping this year, make it this one.",
    "Neither the songs nor the dancing rescue this limp, joyless revival.",
    "Its heart is in the right place; its camera rarely is.",
    "Not the disaster I was promised, but not a film I would cross the road for either.",
    "You would have to be made of stone not to enjoy the final twenty minutes.",
    "She gives a performance so precise and so unshowy that you forget anyone wrote the words.",
    "A thriller without thrills, a romance without warmth, and a mystery that nobody bothers to solve.",
    "I expected nothing and was still let down.",
    "I expected nothing and came out grinning like a fool.",
    "The first half is superb. The second half undoes it, scene by patient scene.",
    "The acting is stiff and the sets wobble, yet I have watched it four times and will happily watch it again.",
    "They say the book is better. They are right, and the book is not very good.",
    "Hardly a minute goes by without somebody explaining the plot to somebody who already knows it.",
    "This is not, whatever the poster claims, a comedy.",
    "Brilliantly cast, beautifully lit, and about forty minutes too long.",
    "Bring tissues, bring a friend, and for heaven's sake bring patience.",
    "It never once condescends to the children it was made for, and they sat still for all of it.",
    "Every single joke is in the trailer. Both of them.",
    "I wanted to hate it and failed.",
    "the dog is excellent . everyone else should take lessons from the dog .",
    "did n't work for me , though the couple behind us could n't stop clapping",
    "half-baked , half-hearted and half past eleven before it finally lets you leave",
    "Great value for the price, quick delivery, and the colour matches the photo exactly.",
    "Broke after two days. The seller answered my message with a link to a page that does not exist.",
    'Five stars for the staff, one star for the mattress, zero stars for the "sea view" of a car park.',
    "Update after six months: still sharp, still quiet, still the best thirty-five pounds I have spent on the kitchen.",
    'Do NOT buy the XL-2200!!! It leaks from the lid AND the base, and the "lifetime warranty" lasts 90 days.',
    (
        "We ordered the set menu for nine people. The soup was cold, the fish was colder, and the bill was a comedy of "
        "errors, which at least gave us something to laugh about while we waited thirty minutes for a taxi."
    ),
    (
        "Our guide, Amina, knew every stone in the old town and told its stories as though she had been there. My father, "
        "who complains about everything, asked whether we could book the same walk again the next morning."
    ),
    (
        "The app crashes each time I rotate the phone, forgets my password twice a week, and has now charged me for a plan "
        "that I cancelled in March. Support keeps sending me the same three paragraphs."
    ),
    (
        "Bought as a present for my sister, who is hard to please. She rang me the same evening to say thank you, which has "
        "not happened since 1998."
    ),
    (
        "Decent headphones. The bass is a little heavy and the case feels cheap, but they stay in my ears when I run and the "
        "battery really does last nine hours."
    ),
    (
        "The room was clean, the bed was comfortable and breakfast ran until eleven. I have nothing clever to add: we slept "
        "well and we would stay again."
    ),
    (
        "The parliament voted on Tuesday to delay the reform of the water authority until the spring, after a day of talks "
        "between the two largest parties ended without agreement."
    ),
    (
        "Shares in the shipping group fell 6.4 % in early trading, wiping out most of the gains made since the merger was "
        "announced in September."
    ),
    (
        "Researchers have found traces of a harbour wall that may be three hundred years older than the town itself, the "
        "regional museum said."
    ),
    (
        "Heavy rain is expected along the coast from Thursday afternoon, with gusts of up to 95 km/h on exposed hills; "
        "travellers are advised to check timetables before setting out."
    ),
    "The home side equalised in the 89th minute and won 3-2 in extra time, their first away victory in eleven matches.",
    (
        "Inflation slowed to 2.1 percent in the twelve months to June, from 2.6 percent in May, as the price of food and "
        "fuel eased; rents continued to rise."
    ),
    (
        "A lorry carrying eleven tonnes of potatoes overturned on the ring road shortly before dawn. Nobody was hurt. By "
        "noon, according to a police spokeswoman, most of the potatoes had been removed by passers-by."
    ),
    (
        "The festival's jury gave its main prize to a first-time director from Tallinn, whose black-and-white film follows a "
        'ferry pilot through one winter. "I thought someone had read the wrong envelope," she told reporters.'
    ),
    (
        "The central bank left its key rate unchanged at 3.25 % for the fourth meeting in a row. Economists had been "
        "divided: of the 28 polled last week, 15 expected no change, 12 a cut of a quarter point and one a cut of half a "
        'point. The governor said that the outlook for growth was "neither bright nor dark, but foggy".'
    ),
    (
        "Engineers at the observatory restarted the second antenna last night after a fault in its cooling system had kept "
        "it out of service for five weeks. The instrument, which listens for faint radio signals from distant galaxies, is "
        "now expected to resume its survey on Monday. The cost of the repair has not been made public."
    ),
    "Who wrote the letter that arrived after the funeral?",
    "How many litres are there in an imperial gallon, and why does anyone still use it?",
    "Can I change the delivery address once the parcel has left your warehouse?",
    "What is the capital of Mongolia?",
    "Is it safe to eat rice that was left on the counter overnight?",
    "Where did you put the blue folder, the one with the insurance papers in it?",
    "Why does the ice in my glass crack when I pour water over it? Is the glass going to break?",
    "Should I accept the first offer, or wait until the other company has answered?",
    "hey are you still coming tonight? we saved you a seat",
    "lol that ending... did NOT see it coming!!",
    "running late, start without me, sorry sorry sorry",
    "omg yes!! best news all week :) :) :)",
    "ugh. my train was cancelled again and now its raining",
    "i mean its ok?? the old version was better tho",
    "brb, dog ate the remote",
    "Can u send me the file again pls, the link doesnt open on my phone",
    "no worries, take your time! we are not in a hurry here",
    "WHY IS EVERYTHING SO EXPENSIVE NOW",
    (
        "so apparently the meeting was moved to 3pm and nobody told me, nobody told Priya either, and the client sat alone "
        "in the call for twenty minutes"
    ),
    (
        "Dear Ms. Halloran, thank you for your application of 4 October. We were impressed by your portfolio and would like "
        "to invite you to a conversation with our team next week. Kind regards, T. Okafor"
    ),
    "Please find attached the minutes of the meeting. Items 4 and 7 were postponed; item 9 was withdrawn.",
    (
        "Reminder: the lift in building C will be out of order from 08:00 to 16:30 on Wednesday. Please use the stairs at "
        "the north entrance."
    ),
    "Your one-time code is 481 093. It expires in 10 minutes. We will never ask you for this code by phone.",
    "Invoice no. 2023/0117-B: 12 x A4 binders @ $3.49 = $41.88; VAT (20%) $8.38; total due $50.26.",
    "Call +44 20 7946 0018 or write to help@example.org (Mon-Fri, 9-5).",
    "ERROR 0x80070057: the parameter is incorrect (line 218, column 7); retrying in 5 s ...",
    "def area(r): return 3.14159 * r ** 2  # r in metres",
    "https://example.com/a/b?id=77&lang=en#top",
    '{"status": "ok", "items": [1, 2, 3], "next": null}',
    "x = (-b + sqrt(b^2 - 4ac)) / 2a, where a != 0",
    "!!! >>> *** SALE *** <<< !!! 70% OFF -- TODAY ONLY !!!",
    '"Well," she said, "that\'s that, isn\'t it?" -- and it was; it really was...',
    "10/10, would be rained on in the front row again :-)",
    "temp 38.9, pulse 104, bp 132/85, no rash, no known allergies",
    "Wed 14th: 2-1 (h.t. 1-1). Thu 15th: 0-0. Sat 17th: 4-3 a.e.t.",
    "-----",
    "$$$ & %%% ### @@@",
    "Antidisestablishmentarianism, pneumonoultramicroscopicsilicovolcanoconiosis and other words nobody needs",
    (
        "Preheat the oven to 200 °C. Rub 120 g of cold butter into 250 g of flour until it looks like breadcrumbs, add a "
        "pinch of salt and three spoonfuls of iced water, and leave the dough to rest for half an hour."
    ),
    (
        "Turn left at the bakery, keep the canal on your right, and after the second bridge you will see a green door with "
        "no number on it. Ring twice. If nobody opens, the key is under the third flower pot."
    ),
    (
        "Photosynthesis converts light, water and carbon dioxide into sugar and oxygen. In most plants it takes place in the "
        "leaves, inside small bodies called chloroplasts, whose green pigment absorbs mainly red and blue light."
    ),
    (
        "The tenant shall keep the premises in good repair, fair wear and tear excepted, and shall not sublet any part of "
        "them without the prior written consent of the landlord, which shall not be unreasonably withheld."
    ),
    "Das Essen war kalt, aber die Bedienung war sehr freundlich und hat sich sofort entschuldigt.",
    "Un film magnifique, drôle et triste à la fois ; je le reverrai avec plaisir.",
    "La película es demasiado larga y el final no tiene ningún sentido, pero la música me gustó mucho.",
    "Il servizio è stato pessimo: abbiamo aspettato un'ora e nessuno ci ha chiesto scusa.",
    "O livro chegou rasgado e a loja não quis trocar.",
    "Очень хороший фильм, смотреть всей семьёй.",
    "とても面白い映画でした。もう一度見たいです。",
    "这家餐厅的服务很差，我们等了一个小时。",
    "الخدمة ممتازة والمكان نظيف جدا",
    "Bu kadar sıkıcı bir oyun görmedim.",
    "café naïve façade jalapeño Zürich Ångström señor São Paulo",
    "Two people are repairing a bicycle in a workshop. A bicycle is being repaired indoors.",
    "A woman is asleep on the train. The woman is playing the violin in front of a large audience.",
    (
        "What year did the bridge open to traffic? The bridge, designed in 1926, was opened to traffic in the summer of 1932 "
        "after several delays."
    ),
    (
        "how to descale a kettle with vinegar. Fill the kettle halfway with equal parts of water and white vinegar, bring it "
        "to the boil, let it stand for twenty minutes and rinse it well."
    ),
    "The company raised its forecast for the year. The company cut its forecast for the year.",
    "I liked the hotel. I did not like the hotel.",
    (
        "On paper this should not work. The hero is a tax inspector, the villain is a spreadsheet, and the only chase takes "
        "place in a car park at walking speed. Yet the writing is so sly, and the two leads are so obviously delighted to be "
        "sharing a scene, that by the end of the first hour I had stopped checking my watch and started dreading the "
        "credits. It is small, strange and completely sure of itself."
    ),
    (
        "I have now tried three times to finish this novel. Each time I reach the chapter with the lighthouse, and each time "
        "I put it down and do something more exciting, such as ironing. The sentences are polished until nothing sticks to "
        "them, the dialogue sounds like two dictionaries flirting, and the twist, which a friend finally told me, is the one "
        "you think of on page nine and dismiss as too obvious."
    ),
    (
        "We moved here in the autumn with two cats, one child and no furniture to speak of. The neighbours brought soup on "
        "the first night and a ladder on the second. I do not know what we did to deserve them. The heating makes a noise "
        "like a distant brass band, the kitchen floor slopes towards the river, and the post arrives whenever it pleases, "
        "but when the sun comes through the big window in the morning none of that seems to matter very much."
    ),
    (
        "Let me be fair: the battle scenes are magnificent. You feel the mud, you hear the horses, and for a few minutes at "
        "a time the film looks like the masterpiece that it so badly wants to be. Then somebody opens his mouth. The "
        "dialogue is wooden, the love story was apparently written on the back of a parking ticket, and the king, played by "
        "an actor who has been wonderful elsewhere, delivers every line as if reading an eye chart. There are three endings, "
        "and I would have been grateful for any one of them. My daughter fell asleep. My neighbour fell asleep. I envied "
        "both of them, and I say that as someone who has read the book twice and defended the first two parts against all "
        "comers. What a pity, what a spectacular, expensive, thunderous pity."
    ),
    (
        "I picked this up at the airport because the cover had a boat on it, and I finished it somewhere over the Atlantic "
        "with tears running down my face and a flight attendant asking whether I was all right. I was more than all right. "
        "It tells the story of a widow who repairs clocks on an island where nobody seems to need the time, and of the boy "
        "who is sent to her one summer because there is nowhere else to send him. Nothing much happens. They quarrel, they "
        "cook, they take a clock apart and put it back together, and slowly, so slowly that you hardly notice, they begin to "
        "trust each other. The author never raises her voice. There are no villains and no miracles, only weather and work "
        "and two people learning to be kind. I have already bought four copies for friends, and I have never done that "
        "before in my life. If you have ever loved a grandparent, read it; if you have not, read it anyway."
    ),
    (
        "The firm said on Monday that it would close two of its five plants by the end of next year, with the loss of about "
        '1,400 jobs, as it shifts production to a new site near the port. Union leaders called the decision "a betrayal" and '
        "said that workers had accepted a pay freeze in 2021 in return for a promise that no plant would close before 2030. "
        "Management replied that demand had fallen by a third since then, that energy costs had doubled, and that the "
        'promise had been "subject to market conditions". The regional government offered to hold talks with both sides and '
        "did not rule out financial help. Analysts were less surprised: the older of the two plants opened in 1957, has not "
        "made a profit for six years, and stands on land that is worth considerably more than the machines inside it. "
        "Trading in the company's shares was briefly suspended in the morning; they closed 2.8 percent higher. A further "
        "announcement is expected on 12 November, when the board meets to approve the accounts for the third quarter."
    ),
    (
        "First, switch the machine off at the wall and wait at least ten minutes for it to cool down. Remove the drip tray "
        "and empty it. Press the two grey tabs on either side of the brewing unit towards each other and pull the unit "
        "straight out; do not twist it. Rinse the unit under warm water without any soap, shake off the drops, and leave it "
        "to dry in the air. Meanwhile wipe the inside of the housing with a damp cloth, taking care not to touch the sensor "
        "on the left. Put a little of the grease that came with the machine on the seal, slide the unit back in until it "
        "clicks, and replace the tray. Switch the machine on again. If the red light keeps blinking, the unit is not seated "
        "properly: repeat the steps above. If it blinks three times and then stops, everything is as it should be, and you "
        "can go back to drinking coffee. Should the light stay on, unplug the machine and contact our service department; "
        "you will find the serial number on the bottom, under the sticker with the owl."
    ),
    (
        "My grandmother used to say that a house tells you what it wants if you sit in it long enough. So when I bought the "
        "old schoolhouse, for less than the price of a decent car, I put a chair in the middle of the biggest room and sat "
        "there every evening for a month. What it wanted, it turned out, was a new roof. It also wanted drains, wiring, "
        "eleven windows and a small fortune in oak. I am not complaining. I learned to plaster from videos, badly, and then "
        "from a retired builder called Owen, well. I learned that mice prefer peanut butter to cheese and that no two walls "
        "built before 1900 have ever met at a right angle. It has been four years now. The roof is sound, the stove draws, "
        "and in the evenings the swallows come in over the playground exactly as they must have done when children were "
        "still chanting their tables inside. People ask whether it was worth it. I tell them to pull up a chair."
    ),
    (
        "Terrible, terrible, terrible. I booked through the website in January, paid in full, and received a confirmation "
        "for two rooms with a balcony. On arrival we were told that there were no rooms with a balcony, that there had never "
        "been any rooms with a balcony, and that in any case only one room had been reserved. The manager shrugged. After an "
        "hour in the lobby we were given the keys to what I can only describe as a cupboard above the kitchen, where the "
        "smell of frying never left and the extractor fan started at five each morning. The towels were grey. The safe was "
        "broken, the lamp was broken, and the window opened on to a wall. When I asked for part of our money back I was "
        "offered a voucher for the bar, which was closed for the season. I have travelled for work for twenty-two years and "
        "I have never written a review like this, but somebody should warn you."
    ),
)
