"""Prompts written for the tests, by the levels that suit them."""

EASY = [
    "hello!",
    "thank you so much",
    "Guten Abend zusammen",
    "merci beaucoup !",
    "gracias, hasta luego",
    "ciao, come va?",
    "bom dia",
    "здравствуйте",
    "谢谢你",
    "おはよう",
    "안녕하세요",
    "مرحبا بك",
    "नमस्ते",
    "What is the capital of Chile?",
    "Wer hat die Glühbirne erfunden?",
    "¿Cuál es la capital de Kenia?",
    "solve my love life lol",
    "prove you love me haha",
    "calculate my chances with her lol",
    "debug my life please :)",
    "analyse this: meow",
    "Translate to Italian: Prove that every bounded sequence has a convergent subsequence.",
    'Translate into French: "Compute the determinant of the matrix and justify each step."',
    "Traduis en anglais : Démontrez que la somme des angles d'un triangle vaut 180 degrés.",
    "Übersetze ins Spanische: Berechne die Ableitung und beweise die Ungleichung.",
    "Traduce al inglés: demuestra que hay infinitos números primos.",
    "把下面这句话翻译成英文：证明这个数列收敛。",
    "次の文を英語に翻訳してください：この不等式を証明せよ。",
    "Переведи на английский: докажите, что ряд сходится.",
    "다음 문장을 영어로 번역해 줘: 이 정리를 증명하시오.",
    'Fix the spelling: "The algoritm optimises the dinamic programing solusion."',
    "Give this a title: We show that the scheduler can deadlock under load and prove a bound.",
    "Summarise in one line: The theorem states that every compact set is closed and bounded.",
]
"""Prompts that need no thinking: `none`, or at most `low`."""

HARD = [
    "Prove that a group of order 35 is cyclic.",
    "Beweise, dass die Wurzel aus 7 irrational ist.",
    "Démontrer que toute suite de Cauchy dans R converge.",
    "Demuestra que si n^2 es par entonces n es par, y generaliza a primos.",
    "Dimostra che ogni polinomio di grado dispari ha una radice reale.",
    "Prove que existem infinitos primos da forma 4k+3.",
    "Докажите, что среди любых семи целых чисел найдутся два, разность которых делится на 6.",
    "证明：任意连续函数在闭区间上一致连续。",
    "任意の正の整数nについて、n^3-nが6の倍数であることを証明せよ。",
    "모든 소수 p > 3에 대하여 p^2-1이 24의 배수임을 증명하시오.",
    "أثبت أن مجموع عددين نسبيين عدد نسبي وأن الجذر التربيعي للعدد 2 غير نسبي.",
    "सिद्ध करें कि 2 का वर्गमूल अपरिमेय है।",
    "Find all f: R -> R such that f(x + f(y)) = f(x) + y for all real x, y.",
    "Let $p$ be an odd prime. Show that $\\sum_{k=1}^{p-1} k^{p-1} \\equiv -1 \\pmod{p}$.",
    "what are the last three digits of 13^(17^19)",
    "twelve coins, one is fake and may be lighter or heavier. three weighings, how do i find it",
    "Under heavy load our distributed lock lets two workers in at once. "
    "Find the race condition and prove that your fix is correct.",
]
"""Prompts that need thinking: never `none`."""

PASTED = """def take(items, n):
    out = []
    for at in range(n + 1):
        out.append(items[at])
    return out
"""
